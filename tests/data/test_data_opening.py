"""Every kind of source gives the images, labels and splits that were put into it."""

import csv
import hashlib
import logging
import multiprocessing
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow import labels_of, pixels_of
from PIL import Image

from headwise.data import (
    DataConfig,
    ImageFiles,
    Images,
    ResidentImages,
    Splits,
    open_images,
    opening,
    resident,
    write_skipped,
)
from headwise.data.account import copies
from headwise.data.images import resident_images
from headwise.errors import UserError

SIZE = (5, 6)
FLAT = {"a.png": SIZE, "b.png": SIZE, "c.png": SIZE}
CLASSES = {f"{kind}/{i}.png": SIZE for kind in ("cat", "dog") for i in range(5)}
SPLIT = {
    f"{split}/{kind}/{i}.png": SIZE
    for split, n in (("train", 4), ("val", 2))
    for kind in ("cat", "dog")
    for i in range(n)
}


def zipped(folder: Path, path: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for member in sorted(folder.rglob("*")):
            file.write(member, member.relative_to(folder))
    return path


def the_same(a, b) -> bool:
    assert type(a) is type(b)
    assert list(a.ids) == list(b.ids)
    assert a.classes == b.classes
    assert (a.labels is None) == (b.labels is None)
    assert a.labels is None or torch.equal(a.labels, b.labels)
    if isinstance(a, ResidentImages):
        assert torch.equal(a.pixels, b.pixels)
    assert a.fingerprint == b.fingerprint
    return True


def expected_pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def error_of(spec: str | Path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        open_images(DataConfig(spec=str(spec), **settings))
    message = str(caught.value)
    assert "\n" not in message
    return message


# Folders and zips


def test_flat_folder_is_unlabelled_and_has_no_test(image_folder):
    root = image_folder(FLAT)
    train, test = open_images(str(root))
    assert isinstance(train, ResidentImages)
    assert (train.labels, train.classes, test) == (None, (), None)
    assert list(train.ids) == ["a.png", "b.png", "c.png"]
    for pixels, name in zip(train.pixels, train.ids, strict=True):
        assert torch.equal(pixels, expected_pixels(root / name))


def test_class_folders_are_labels_and_are_split(image_folder):
    root = image_folder(CLASSES)
    train, test = open_images(DataConfig(spec=str(root), test_fraction=0.4))
    assert test is not None
    assert train.classes == test.classes == ("cat", "dog")
    for part in (train, test):
        assert {0, 1} == {*labels_of(part).tolist()}
        assert labels_of(part).tolist() == [train.classes.index(id[:3]) for id in part.ids]
    assert sorted([*train.ids, *test.ids]) == sorted(CLASSES)
    for pixels, name in zip(pixels_of(test), test.ids, strict=True):
        assert torch.equal(pixels, expected_pixels(root / name))


def test_no_split_where_none_is_wanted(image_folder):
    train, test = open_images(DataConfig(spec=str(image_folder(CLASSES)), test_fraction=0.0))
    assert (len(train), test) == (10, None)


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation", "Val"])
def test_own_split(image_folder, name):
    root = image_folder({path.replace("val/", f"{name}/"): size for path, size in SPLIT.items()})
    train, test = open_images(str(root))
    assert test is not None
    assert (len(train), len(test)) == (8, 4)
    assert test.ids[0] == f"{name}/cat/0.png"
    assert labels_of(test).tolist() == [0, 0, 1, 1]


def test_test_labels_are_indices_into_the_classes_of_train(image_folder):
    files = {path: size for path, size in SPLIT.items() if not path.startswith("val/cat")}
    train, test = open_images(str(image_folder(files)))
    assert test is not None
    assert test.classes == train.classes == ("cat", "dog")
    assert labels_of(test).tolist() == [1, 1]


def test_a_test_class_unknown_to_train_is_an_error(image_folder):
    message = error_of(image_folder({**SPLIT, "val/cow/0.png": SIZE}))
    assert "'cow'" in message
    assert "same classes" in message


def test_deeper_folders_belong_to_the_class(image_folder):
    root = image_folder({"cat/x/y/0.png": SIZE, "cat/1.png": SIZE, "dog/z/0.PNG": SIZE})
    train, _ = open_images(DataConfig(spec=str(root), test_fraction=0.0))
    assert train.classes == ("cat", "dog")
    assert labels_of(train).tolist() == [0, 0, 1]


def test_one_class_is_no_label_and_outer_folders_are_passed_over(image_folder):
    root = image_folder({f"outer/inner/{i}.png": SIZE for i in range(3)})
    train, test = open_images(str(root))
    assert (train.labels, train.classes, test) == (None, (), None)


def test_images_beside_class_folders_mean_no_labels(image_folder, caplog):
    train, test = open_images(str(image_folder({**CLASSES, "loose.png": SIZE})))
    assert (train.labels, test, len(train)) == (None, None, 11)
    assert "1 images lie beside" in caplog.text


def test_hidden_and_foreign_files_are_ignored(image_folder):
    root = image_folder({**FLAT, ".hidden.png": SIZE, "__MACOSX/x.png": SIZE, ".git/x.png": SIZE})
    (root / "notes.txt").write_text("not an image")
    (root / "link").symlink_to(root)  # a loop
    train, _ = open_images(str(root))
    assert list(train.ids) == sorted(FLAT)


@pytest.mark.parametrize("files", [FLAT, CLASSES, SPLIT])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_equals_folder(image_folder, tmp_path, files, compression):
    root = image_folder({f"top/{path}": size for path, size in files.items()})
    path = zipped(root, tmp_path / "images.zip", compression)
    for a, b in zip(open_images(str(root)), open_images(str(path)), strict=True):
        assert a is b is None or the_same(a, b)


def test_damaged_zip_member_is_skipped(image_folder, tmp_path):
    path = zipped(image_folder(FLAT), tmp_path / "images.zip", zipfile.ZIP_STORED)
    with zipfile.ZipFile(path) as file:
        offset = file.getinfo("b.png").header_offset
    data = bytearray(path.read_bytes())
    data[offset + 90] ^= 255
    path.write_bytes(data)
    train, _ = open_images(DataConfig(spec=str(path), max_bad_fraction=0.5))
    assert list(train.ids) == ["a.png", "c.png"]
    assert "checksum" in train.skipped[0][1]


# Sizes: in memory, or files


def read_in_process(images: ImageFiles, queue) -> None:
    queue.put(np.asarray(images.read(1)))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_mixed_sizes_stay_files_that_workers_read(image_folder, tmp_path):
    root = image_folder({"a.png": (5, 6), "b.png": (7, 4)})
    for spec in (root, zipped(root, tmp_path / "images.zip")):
        train, _ = open_images(str(spec))
        assert isinstance(train, ImageFiles)
        assert train.to("cpu") is train
        expected = np.asarray(Image.open(root / "b.png"))
        np.testing.assert_array_equal(
            np.asarray(pickle.loads(pickle.dumps(train)).read(1)), expected
        )
        with ThreadPoolExecutor(8) as pool:
            for got in pool.map(train.read, [0, 1] * 20):
                assert got.mode == "RGB"
        context = multiprocessing.get_context("fork")  # the pickle above stands for "spawn"
        queue = context.Queue()
        process = context.Process(target=read_in_process, args=(train, queue))
        process.start()
        np.testing.assert_array_equal(queue.get(timeout=60), expected)
        process.join()


def test_resize_makes_mixed_sizes_resident(image_folder):
    root = image_folder({"a.png": (5, 9), "b.png": (12, 4)})
    train, _ = open_images(DataConfig(spec=str(root), resize=4))
    assert pixels_of(train).shape == (2, 3, 4, 4)
    files, _ = open_images(DataConfig(spec=str(root), resize=4, resident_mib=0))
    assert isinstance(files, ImageFiles)
    np.testing.assert_array_equal(files.read(1), pixels_of(train)[1].permute(1, 2, 0))


def test_arrays_are_resized_too():
    train, _ = open_images(DataConfig(spec="builtin:digits", resize=16, limit=20))
    assert pixels_of(train).shape == (20, 3, 16, 16)


def test_upright_sizes_count(tmp_path):
    """Two photographs of one scene, one stored on its side, are of one size."""
    root = tmp_path / "images"
    root.mkdir()
    scene = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)
    Image.fromarray(scene).save(root / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(scene).copy()).save(root / "b.png", exif=exif)
    train, _ = open_images(str(root))
    assert isinstance(train, ResidentImages)
    assert torch.equal(train.pixels[0], train.pixels[1])


def test_select(image_folder):
    root = image_folder(CLASSES)
    for mib in (0, 4096):
        train, _ = open_images(DataConfig(spec=str(root), test_fraction=0.0, resident_mib=mib))
        part = train.select(torch.tensor([7, 2]))
        assert (len(part), list(part.ids)) == (2, ["dog/2.png", "cat/2.png"])
        assert labels_of(part).tolist() == [1, 0]
        assert part.fingerprint != train.fingerprint
        if isinstance(part, ImageFiles):
            picture = torch.from_numpy(np.array(part.read(0))).permute(2, 0, 1)
        else:
            picture = part.pixels[0]
        assert isinstance(part, ResidentImages) == bool(mib)
        assert torch.equal(picture, expected_pixels(root / "dog/2.png"))


# Bad files


def test_bad_files_are_skipped_and_listed(image_folder, tmp_path, caplog):
    root = image_folder(FLAT)
    data = (root / "b.png").read_bytes()
    (root / "b.png").write_bytes(data[: len(data) // 2])
    for _ in range(2):  # decoded, then from the cache
        train, _ = open_images(DataConfig(spec=str(root), max_bad_fraction=0.5))
        assert list(train.ids) == ["a.png", "c.png"]
        assert pixels_of(train).shape == (2, 3, *SIZE)
        assert torch.equal(pixels_of(train)[1], expected_pixels(root / "c.png"))
        assert [name for name, _ in train.skipped] == ["b.png"]
    assert "skipped 1 unreadable of 3" in caplog.text
    table = tmp_path / "run" / "skipped.csv"
    write_skipped([train, train.select(torch.tensor([0]))], table)
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["file", "reason"]
    assert rows[1][0] == "b.png"


def test_nothing_skipped_writes_no_table(image_folder, tmp_path):
    write_skipped([open_images(str(image_folder(FLAT))).train], tmp_path / "skipped.csv")
    assert not (tmp_path / "skipped.csv").exists()


def test_too_many_bad_files_are_an_error_naming_ten(image_folder):
    root = image_folder({f"{i:02}.png": SIZE for i in range(30)})
    for i in range(12):
        (root / f"{i:02}.png").write_bytes(b"broken")
    message = error_of(root)
    assert "12 of 30" in message
    assert "09.png" in message
    assert "10.png" not in message


def test_bad_headers_of_files(image_folder):
    root = image_folder({"a.png": (5, 6), "b.png": (7, 4), "c.png": SIZE, "d.png": SIZE})
    (root / "c.png").write_bytes(b"broken")
    (root / "d.png").write_bytes((root / "d.png").read_bytes()[:60])  # a whole header
    train, _ = open_images(DataConfig(spec=str(root), max_bad_fraction=0.5))
    assert list(train.ids) == ["a.png", "b.png", "d.png"]
    assert [name for name, _ in train.skipped] == ["c.png"]
    assert isinstance(train, ImageFiles)
    with pytest.raises(OSError, match=r"^d\.png: "):
        train.read(2)


def test_what_cannot_be_opened_is_one_clear_line(image_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_bytes(b"not a zip")
    (tmp_path / "file.npz").write_bytes(b"not an npz")
    (tmp_path / "file.parquet").write_bytes(b"not parquet")
    (tmp_path / "file.doc").write_bytes(b"a letter")
    broken = image_folder({"a.png": SIZE})
    (broken / "a.png").write_bytes(b"broken")
    assert "holds no images" in error_of(tmp_path / "empty")
    assert "must be a zip file" in error_of(tmp_path / "file.zip")
    assert "must be an .npz file" in error_of(tmp_path / "file.npz")
    assert "parquet" in error_of(tmp_path / "file.parquet")
    assert "must be a folder, or end in" in error_of(tmp_path / "file.doc")
    assert "must hold a readable image; none of 1 is" in error_of(broken)
    assert "must be a path that exists" in error_of(tmp_path / "missing")
    assert "did you mean 'builtin:shapes'" in error_of("bultin:shapes")
    assert "did you mean 'digits'" in error_of("builtin:digit")
    assert "did you mean 'CIFAR10'" in error_of("torchvision:CIFAR11")


@pytest.mark.parametrize(
    "setting",
    [
        {"limit": 0},
        {"test_fraction": 1.0},
        {"resize": 0},
        {"resident_mib": -1},
        {"max_bad_fraction": 2.0},
    ],
)
def test_settings_are_checked(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        DataConfig(**setting)


# The cache


@pytest.fixture
def decoded_count(monkeypatch):
    """How many images were decoded."""
    count = []
    real = resident.decode

    def decode(*given, **named):
        count.append(1)
        return real(*given, **named)

    monkeypatch.setattr(resident, "decode", decode)
    return count


def test_second_opening_decodes_nothing(image_folder, decoded_count):
    root = image_folder(CLASSES)
    first = open_images(str(root))
    assert len(decoded_count) >= len(CLASSES)
    decoded_count.clear()
    for a, b in zip(first, open_images(str(root)), strict=True):
        assert the_same(a, b)
    assert decoded_count == []
    open_images(DataConfig(spec=str(root), cache=False))
    assert len(decoded_count) >= len(CLASSES)


def test_limit_decodes_no_more(image_folder, decoded_count):
    train, test = open_images(DataConfig(spec=str(image_folder(CLASSES)), limit=2))
    assert labels_of(train).tolist() == labels_of(test).tolist() == [0, 1]
    assert len(decoded_count) <= 6  # of each split the first image twice


def test_limit_of_unlabelled_images_is_the_first_ones(image_folder):
    train, _ = open_images(DataConfig(spec=str(image_folder(FLAT)), limit=2))
    assert list(train.ids) == ["a.png", "b.png"]


def test_a_changed_file_is_decoded_again(image_folder):
    root = image_folder(FLAT)
    before = open_images(str(root)).train
    Image.new("RGB", SIZE[::-1], "red").save(root / "b.png")
    after = open_images(str(root)).train
    assert after.fingerprint != before.fingerprint
    assert torch.equal(pixels_of(after)[1], expected_pixels(root / "b.png"))


@pytest.mark.parametrize("name", ["pixels.npy", "entry.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_cache_is_decoded_again(image_folder, cache_folder, caplog, name, damage):
    root = image_folder(FLAT)
    first = open_images(str(root)).train
    (path,) = cache_folder.rglob(name)
    data = bytearray(path.read_bytes())
    data[-3] ^= 255
    match damage:
        case "flip":
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[:20])
        case "remove":
            path.unlink()
    assert the_same(first, open_images(str(root)).train)
    assert "is damaged" in caplog.text
    caplog.clear()
    assert the_same(first, open_images(str(root)).train)
    assert "is damaged" not in caplog.text


def test_unwritable_cache_is_a_warning(image_folder, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "headwise"):
        assert len(open_images(str(image_folder(FLAT))).train) == 3
    assert "not cached" in caplog.text


@pytest.mark.parametrize("local_rank", ["0", "1"])
@pytest.mark.parametrize("spec_exists", [True, False])
def test_one_rank_of_a_host_fills_the_cache_for_the_others(
    image_folder, monkeypatch, local_rank, spec_exists
):
    """The first opens, then meets the others at the barrier, also after an error."""
    events = []
    real = opening._open
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr(opening.distributed, "world_size", lambda: 2)
    monkeypatch.setattr(opening.distributed, "barrier", lambda: events.append("barrier"))
    monkeypatch.setattr(opening, "_open", lambda *given: (events.append("open"), real(*given))[1])
    if spec_exists:
        assert len(open_images(str(image_folder(FLAT))).train) == 3
    else:
        error_of("missing")
    assert events == (["open", "barrier"] if local_rank == "0" else ["barrier", "open"])


# Arrays


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    train, test = open_images("builtin:digits")
    digits: Any = load_digits()
    assert test is not None
    assert len(train) + len(test) == len(digits.images)
    for images in (train, test):
        rows = [int(id.split(":")[1]) for id in images.ids]
        assert labels_of(images).tolist() == digits.target[rows].tolist()
        stored = pixels_of(images)[:, 0].numpy() * (16 / 255)
        np.testing.assert_allclose(stored, digits.images[rows], atol=16 / 255 / 2)


def test_shapes_have_factors_that_select_and_move():
    train, test = open_images(DataConfig(limit=40))
    assert test is not None
    assert (len(train), len(test), len(train.classes)) == (40, 40, 10)
    part = train.select(torch.tensor([3, 1])).to("cpu")
    assert part.factors
    for name, values in part.factors.items():
        assert torch.equal(values, train.factors[name][[3, 1]])
    assert train.fingerprint != test.fingerprint


NHWC = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), np.uint8)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (NHWC, NHWC),
        (NHWC.transpose(0, 3, 1, 2), NHWC),
        (NHWC[..., 0], NHWC[..., [0, 0, 0]]),
        (NHWC[..., :1], NHWC[..., [0, 0, 0]]),
        (np.concatenate([NHWC, np.full_like(NHWC[..., :1], 255)], 3), NHWC),
        (np.concatenate([NHWC, np.zeros_like(NHWC[..., :1])], 3), np.full_like(NHWC, 255)),
    ],
)
def test_npz_layouts(tmp_path, array, expected):
    np.savez(tmp_path / "a.npz", images=array)
    train, test = open_images(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(pixels_of(train).permute(0, 2, 3, 1), expected)
    assert (train.labels, test) == (None, None)


@pytest.mark.parametrize("keys", ["x_{}/y_{}", "{}_images/{}_labels"])
def test_npz_splits_labels_and_class_names(tmp_path, keys):
    images, labels = keys.split("/")
    values: dict[str, Any] = {
        images.format("train"): NHWC,
        labels.format("train"): np.array([[2], [0], [1], [0], [2], [1]]),
        images.format("test"): NHWC[:2],
        labels.format("test"): np.array([[1], [2]]),
    }
    np.savez(tmp_path / "a.npz", **values, classes=np.array(["x", "y", "z"]))
    train, test = open_images(str(tmp_path / "a.npz"))
    assert test is not None
    assert train.classes == test.classes == ("x", "y", "z")
    assert labels_of(train).tolist() == [2, 0, 1, 0, 2, 1]
    assert labels_of(test).tolist() == [1, 2]


def test_npz_errors(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, pictures=NHWC)
    assert "must hold images or x_train" in error_of(path)
    np.savez(path, images=NHWC / 255)
    assert "must be uint8" in error_of(path)
    np.savez(path, images=NHWC, labels=np.arange(3))
    assert "one label per image" in error_of(path)
    np.savez(path, images=NHWC, labels=np.zeros(6))
    assert "one integer or one string" in error_of(path)
    np.savez(path, images=NHWC, labels=np.arange(6), classes=np.array(["x"]))
    assert "a name at the index of every label" in error_of(path)
    np.savez(path, images=np.array([None]))
    assert "plain arrays" in error_of(path)


def test_torchvision_reads_what_lies_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWISE_DATA", str(tmp_path))
    message = error_of("torchvision:CIFAR10")
    assert "download=True" in message
    assert str(tmp_path) in message


# Real images


def test_cifar10_is_the_official_one(real_data):
    spec = str(real_data("cifar10") / "test-*.parquet")
    images, _ = open_images(DataConfig(spec=spec, test_fraction=0.0))
    rows = pixels_of(images).permute(0, 2, 3, 1).contiguous().numpy()
    digest = hashlib.sha256(rows.data).hexdigest()
    assert digest == "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"
    assert images.classes[:2] == ("airplane", "automobile")
    assert labels_of(images).bincount().tolist() == [1000] * 10


def test_tiny_imagenet(real_data):
    train, test = open_images(DataConfig(spec=str(real_data("tiny-imagenet-20.zip")), limit=100))
    assert pixels_of(train).shape == pixels_of(test).shape == (100, 3, 64, 64)
    assert labels_of(train).bincount().tolist() == labels_of(test).bincount().tolist() == [5] * 20


def test_grey_files_among_colour_ones(real_data, tmp_path):
    with zipfile.ZipFile(real_data("tiny-imagenet-20.zip")) as file:
        names = [name for name in file.namelist() if name.endswith("JPEG")]
        first = next(name for name in names if Image.open(file.open(name)).mode == "L")
        for name in (first, names[0]):
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / "images" / Path(name).name).write_bytes(file.read(name))
    train, _ = open_images(str(tmp_path / "images"))
    grey = {id: bool((p == p[:1]).all()) for id, p in zip(train.ids, pixels_of(train), strict=True)}
    assert grey == {Path(first).name: True, Path(names[0]).name: False}


def test_imagenet_stays_files(real_data):
    train, test = open_images(str(real_data("imagenet_sample_100_orig.zip")))
    assert isinstance(train, ImageFiles)
    assert (len(train), len(train.classes), test) == (100, 100, None)
    assert train.read(3).mode == "RGB"


@pytest.mark.parametrize(
    ("files", "said"), [(SPLIT, "has a test split of its own"), (FLAT, "has no labels")]
)
def test_settings_of_a_split_that_is_not_drawn_say_so(image_folder, caplog, files, said):
    folder = str(image_folder(files))
    for fraction, seed in ((0.3, 0), (0.2, 3)):
        open_images(DataConfig(spec=folder, test_fraction=fraction, split_seed=seed))
        assert f"{said}: no test images are drawn" in caplog.text
        caplog.clear()
    open_images(DataConfig(spec=folder, test_fraction=0.0))
    assert "no test images are drawn" not in caplog.text


def test_columns_without_an_effect_say_so(caplog):
    open_images(DataConfig(spec="builtin:digits", limit=20, image_column="picture"))
    assert "image_column picture is not used" in caplog.text


def test_images_are_checked_before_any_is_decoded(image_folder, monkeypatch):
    def decoded(images: Images, *_: object) -> Images:
        seen.append("decoded")
        return images

    seen: list[str] = []
    monkeypatch.setattr(opening, "_decoded", decoded)
    config = DataConfig(spec=str(image_folder(CLASSES)), limit=4)
    open_images(config, check=lambda splits: seen.append(f"{len(splits.train)} checked"))
    assert seen == ["4 checked", "decoded", "decoded"]


def test_copies_of_training_images_are_counted():
    train, test = (pixels_of(p) for p in open_images(DataConfig(spec="builtin:digits", limit=60)))
    asked = torch.cat([train[[5, 9, 5]], test])
    changed = asked.clone()
    changed[0, 0, 0, 1] ^= 1  # a pixel that the quick look leaves out
    for pixels, count in ((test, 0), (asked, 3), (changed, 2)):
        splits = (
            resident_images(p, None, (), list(map(str, range(len(p))))) for p in (train, pixels)
        )
        assert copies(Splits(*splits)) == count
