"""Batches of views and of whole images, in memory and from files."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from resolved import resolved_augment

from headwise.augment import (
    AugmentConfig,
    batch_index,
    central_squares,
    resolve,
    view_batches,
    whole_batches,
    write_sheet,
)
from headwise.augment.batches import local_batch
from headwise.augment.study_ops import apply_rotation
from headwise.data import DataConfig, ImageFiles, ResidentImages, open_images
from headwise.errors import UserError
from headwise.runtime import distributed

# Every operation does something, but crops alone can be compared between the two ways of resizing.
FULL = resolved_augment(size=24, strength=1.0, blur=0.5, mean=(0.0,) * 3, std=(1.0,) * 3)
CROPS = dataclasses.replace(FULL, strength=0.0, flip=0.0, jitter=0.0, grey=0.0, blur=0.0)


def pixels(n: int, height: int = 40, width: int = 30) -> torch.Tensor:
    """Half smooth, half noise; no two alike."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (n, 3, height, width), generator=generator)
    slopes = torch.rand(n, 3, 2, 1, 1, generator=generator) * 3
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    smooth = (slopes[:, :, 0] * rows + slopes[:, :, 1] * columns).clamp(0, 255)
    noisy = (columns // 5 + rows // 7) % 2 == 0
    return torch.where(noisy, noise, smooth).round().byte()


def write_folder(folder, images: torch.Tensor) -> None:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03d}.png")


def opened(folder, resident_mib: int):
    config = DataConfig(
        spec=str(folder), cache=False, resident_mib=resident_mib, max_bad_fraction=1.0
    )
    return open_images(config, workers=1).train


@pytest.fixture
def both(tmp_path) -> tuple[ResidentImages, ImageFiles]:
    """Eleven images in memory, and the same as PNG files."""
    write_folder(tmp_path / "images", pixels(11))
    resident, files = opened(tmp_path / "images", 100), opened(tmp_path / "images", 0)
    assert isinstance(resident, ResidentImages)
    assert isinstance(files, ImageFiles)
    assert torch.equal(resident.pixels, pixels(11))
    return resident, files


def batches(images, config, *, steps=range(5), batch_size=4, seed=3, workers=0):
    made = view_batches(
        images,
        config,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        device="cpu",
        workers=workers,
    )
    return list(made)


def test_branches_of_files_have_their_own_operators(both):
    _, files = both
    config = dataclasses.replace(CROPS, ops=("crop",), ops_second=("crop", "rotation"))
    crops, views = (batches(files, some)[0].pixels for some in (CROPS, config))
    turns = local_batch(config, 11, 4, step=0, seed=3)[1].turns
    assert turns[4:].any()
    torch.testing.assert_close(views, apply_rotation(crops, turns), rtol=0, atol=3e-5)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 60), data=st.data(), seed=st.integers(0, 99))
def test_each_epoch_is_a_permutation_without_its_incomplete_batch(n, data, seed):
    batch_size = data.draw(st.integers(1, n))
    each = n // batch_size
    epochs = []
    for epoch in range(3):
        steps = range(epoch * each, (epoch + 1) * each)
        drawn = torch.cat([batch_index(n, batch_size, step, seed) for step in steps]).tolist()
        assert len(drawn) == len(set(drawn)) == each * batch_size
        assert set(drawn) <= set(range(n))
        epochs.append(drawn)
    if n > 20:
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_batch_index_is_a_function_of_its_place():
    index = batch_index(50, 8, 9, seed=1)
    batch_index(50, 8, 1000, seed=7)
    assert torch.equal(batch_index(50, 8, 9, seed=1), index)
    assert not torch.equal(batch_index(50, 8, 9, seed=2), index)


def test_the_dropped_images_are_others_in_every_epoch():
    seen = set()
    for step in range(10):
        seen |= set(batch_index(10, 6, step, seed=0).tolist())
    assert seen == set(range(10))


@pytest.mark.parametrize("kind", [0, 1], ids=["resident", "files"])
def test_views_are_a_function_of_the_step(both, kind):
    images = both[kind]
    straight = batches(images, FULL)
    assert [views.pixels.shape for views in straight] == [(8, 3, 24, 24)] * 5
    resumed = batches(images, FULL, steps=range(3, 5))
    for views, again in zip(straight[3:], resumed, strict=True):
        assert torch.equal(views.pixels, again.pixels)
    assert not torch.equal(straight[0][0], straight[1][0])
    assert not torch.equal(straight[0][0], batches(images, FULL, seed=4)[0][0])


def test_files_give_the_views_that_pixels_in_memory_give(both):
    resident, files = (batches(images, CROPS) for images in both)
    for step, (ours, pillows) in enumerate(zip(resident, files, strict=True)):
        # Pillow rounds to 8 bits after each direction.
        torch.testing.assert_close(ours.pixels, pillows.pixels, rtol=0, atol=2.5 / 255)
        assert pillows.unreadable == []
        for views in (ours, pillows):
            assert torch.equal(views.shown, batch_index(11, 4, step, seed=3))
            assert not views.replaced.any()


def test_views_of_files_are_the_same_with_any_number_of_workers(both):
    alone, helped = batches(both[1], FULL), batches(both[1], FULL, workers=2)
    for views, again in zip(alone, helped, strict=True):
        assert torch.equal(views.pixels, again.pixels)
        assert views.unreadable == again.unreadable == []


@pytest.mark.parametrize("kind", [0, 1], ids=["resident", "files"])
def test_the_ranks_views_together_are_those_of_one_process(both, kind, monkeypatch):
    expected = batches(both[kind], FULL)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        ranks.append(batches(both[kind], FULL))
    for step, views in enumerate(expected):
        parts = [ranks[rank][step][0].chunk(2) for rank in range(2)]
        together = torch.cat([torch.cat(twins) for twins in zip(*parts, strict=True)])
        torch.testing.assert_close(together, views.pixels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_replaced_by_the_next_and_reported(both, tmp_path, workers):
    files = both[1]
    for name in ("004.png", "010.png"):
        path = tmp_path / "images" / name
        path.write_bytes(path.read_bytes()[:500])
    made = batches(files, CROPS, batch_size=11, steps=range(1), workers=workers)
    ((views, shown, replaced, skipped),) = made
    order = batch_index(11, 11, 0, seed=3).tolist()
    assert shown.tolist() == [{4: 5, 10: 0}.get(i, i) for i in order]
    assert replaced.tolist() == [i in (4, 10) for i in order]
    assert {type(entry) for entry in skipped} == {tuple}
    assert sorted(id for id, _ in skipped) == ["004.png", "010.png"]
    assert all(reason.startswith(id) and len(reason) > len(id) for id, reason in skipped)
    # The same crops of images that hold copies of the next ones.
    mended = pixels(11)
    mended[4], mended[10] = mended[5], mended[0]
    write_folder(tmp_path / "mended", mended)
    (expected,) = batches(opened(tmp_path / "mended", 0), CROPS, batch_size=11, steps=range(1))
    assert torch.equal(views, expected.pixels)
    assert {4, 10} <= set(order)


def test_no_readable_file_is_an_error(both, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(
        UserError, match="at least one image must be readable; none of the 11 images is"
    ):
        batches(both[1], CROPS)


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_batches_come_in_order_centred_and_normalised(both, tmp_path, workers):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    config = resolved_augment(size=20, mean=mean, std=std)
    squares = []
    for image in pixels(11):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).crop((0, 5, 30, 35))
        squares.append(np.asarray(picture.resize((20, 20), Image.Resampling.BILINEAR)))
    expected = (np.stack(squares) / 255 - mean) / std
    expected = torch.from_numpy(expected).permute(0, 3, 1, 2).float()
    for images in both:
        made = list(whole_batches(images, config, batch_size=4, device="cpu", workers=workers))
        assert [index.tolist() for index, _ in made] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9, 10],
        ]
        found = torch.cat([views for _, views in made])
        torch.testing.assert_close(found, expected, rtol=0, atol=2.5 / 255 / min(std))


def test_whole_batches_leave_unreadable_files_out(both, tmp_path):
    for i in (2, 4, 5, 6, 7):
        (tmp_path / "images" / f"{i:03d}.png").write_bytes(b"not an image")
    config = resolve(AugmentConfig(size=16), both[1])
    made = whole_batches(both[1], config, batch_size=4, device="cpu", workers=0)
    assert [index.tolist() for index, _ in made] == [[0, 1, 3], [8, 9, 10]]


def test_whole_leaves_squares_of_the_right_size_alone():
    images = pixels(3, 24, 24)
    assert torch.equal(central_squares(images, 24), images.float() / 255)
    assert central_squares(images, 8).shape == (3, 3, 8, 8)


@pytest.mark.parametrize("kind", [0, 1], ids=["resident", "files"])
@pytest.mark.parametrize("size", [16, 24, 70])
def test_the_sheet_shows_eight_images_and_eight_views_of_each(both, tmp_path, kind, size):
    config = resolve(AugmentConfig(size=size), both[kind])
    path = tmp_path / "new" / "views.png"
    write_sheet(both[kind], config, path, seed=0)
    sheet = np.asarray(Image.open(path))
    tile = math.ceil(64 / size) * size
    gap = 4
    assert sheet.shape == (8 * (tile + gap), 9 * (tile + gap) + 3 * gap, 3)
    # The first column holds the images themselves, evenly spaced through the set.
    shown = torch.linspace(0, 10, 8).long()
    squares = (central_squares(pixels(11)[shown], size) * 255).round()
    scale = tile // size
    for row, square in enumerate(squares):
        top = row * (tile + gap)
        cell = torch.from_numpy(sheet[top : top + tile : scale, :tile:scale].copy())
        torch.testing.assert_close(cell.permute(2, 0, 1).float(), square, rtol=0, atol=2.5)


def test_the_sheets_views_stand_beside_their_image(tmp_path):
    """Flat images of unlike greys, without colour changes: every row is of one grey."""
    greys = torch.arange(10, 250, 30)
    write_folder(tmp_path / "flat", greys[:, None, None, None].expand(-1, 3, 64, 64).byte())
    images = opened(tmp_path / "flat", 100)
    config = resolve(AugmentConfig(jitter=0.0), images)
    write_sheet(images, config, tmp_path / "views.png", seed=0)
    sheet = np.asarray(Image.open(tmp_path / "views.png"))
    for row, grey in enumerate(greys.tolist()):
        cells = sheet[row * 68 : row * 68 + 64]
        assert set(np.unique(cells)) <= {grey - 1, grey, grey + 1, 255}
