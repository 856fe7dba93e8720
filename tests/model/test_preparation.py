"""A taken encoder's images are those of `embed`, whatever they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from resolved import resolved_augment

from headwise import load_encoder, prepare
from headwise.data import DataConfig, open_images
from headwise.data.config import Fit
from headwise.encoders.build import EncoderConfig, build_encoder, resolve
from headwise.errors import UserError
from headwise.features.table import embed
from headwise.model.export import save_encoder

SIZE = 16
MODES = ("1", "L", "P", "RGBA", "LA", "I;16", "CMYK", "RGB")
SHAPES = {"wide": (40, 17), "tall": (15, 33), "row": (50, 1), "pixel": (1, 1), "huge": (2300, 90)}


def picture(width: int, height: int, mode: str) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 4), np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 250)
    image = Image.fromarray(pixels[..., :3]) if mode in ("1", "P") else Image.fromarray(pixels)
    return image.convert(mode)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for mode in MODES:
        ending = "tif" if mode == "CMYK" else "png"
        picture(31, 22, mode).save(root / f"mode {mode.replace(';', '')}.{ending}")
    for name, (width, height) in SHAPES.items():
        picture(width, height, "RGB").save(root / f"{name}.jpg", quality=90)
    turned = picture(30, 20, "CMYK")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "turned.jpg", exif=exif)
    return root


@pytest.mark.parametrize(("fit", "resize"), [("crop", None), ("pad", None), ("stretch", 24)])
def test_prepare_is_what_embed_does(
    photos: Path, fit: Fit, resize: int | None, tmp_path: Path
) -> None:
    config = resolve(EncoderConfig(name="resnet-small", widths=(8, 8, 16, 16)), SIZE)
    views = resolved_augment(size=SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    path = tmp_path / "run" / "encoder.safetensors"
    data = DataConfig(fit=fit, resize=resize)
    save_encoder(build_encoder(config, SIZE, seed=0), config, views, path, data)
    embed(path, str(photos), tmp_path / "h.parquet", device="cpu", precision="float32", workers=0)
    table = pq.read_table(tmp_path / "h.parquet")
    expected = torch.tensor(table.column("h").to_pylist())
    paths = [photos / name for name in table.column("path").to_pylist()]
    assert len(paths) == len(MODES) + len(SHAPES) + 1
    encoder: Any = load_encoder(path)
    with torch.no_grad():
        h = encoder(prepare(paths, encoder))
        opened = encoder(prepare(map(Image.open, paths), encoder))
        one = encoder(prepare(paths[0], encoder))
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-5)
    assert torch.equal(opened, h)
    torch.testing.assert_close(one, h[:1], rtol=0, atol=1e-5)
    assert encoder.pretrained_cfg["headwise"] == {
        "size_px": SIZE,
        "mean": views.mean,
        "std": views.std,
        "fit": fit,
        "resize_px": resize,
        "crop": "centre",
        "interpolation": "bilinear",
        "antialias": True,
        "channels": "RGB",
    }


def test_prepare_says_what_it_takes(tmp_path: Path, unchecked: None) -> None:
    config = resolve(EncoderConfig(name="resnet-small", widths=(8, 8, 16, 16)), SIZE)
    path = tmp_path / "encoder.safetensors"
    save_encoder(build_encoder(config, SIZE, seed=0), config, resolved_augment(size=SIZE), path)
    encoder = load_encoder(path)
    assert prepare([], encoder).shape == (0, 3, SIZE, SIZE)
    (tmp_path / "text.png").write_text("no image")
    cases: tuple[tuple[Any, str], ...] = (
        ([np.zeros((4, 4, 3), np.uint8)], "paths and images that Pillow has opened .* got ndarray"),
        (tmp_path / "gone.png", "gone.png cannot be read as an image"),
        ([tmp_path / "text.png"], "not an image of a known format"),
    )
    for images, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            prepare(images, encoder)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"an encoder from headwise\.load_encoder"):
        prepare([], build_encoder(config, SIZE, seed=0))


@pytest.mark.parametrize("resize", [None, 12])
def test_fit_has_one_meaning_in_memory_and_in_files(tmp_path: Path, resize: int | None) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 10, 30, 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(root / f"{i}.png")
    np.savez(tmp_path / "photos.npz", images=pixels)
    side, bar = resize or 30, (resize or 30) // 3
    prints = set()
    for fit in ("pad", "stretch", "crop"):
        opened: list[Any] = [
            open_images(DataConfig(spec=str(spec), fit=fit, resize=resize, resident_mib=mib)).train
            for spec, mib in ((root, 1), (tmp_path / "photos.npz", 1), (root, 0))
        ]
        memory, array, files = opened
        assert torch.equal(memory.pixels, array.pixels)
        assert torch.equal(memory.pixels[1], torch.tensor(np.array(files.read(1))).permute(2, 0, 1))
        with files.open(1) as lazy:
            assert torch.equal(memory.pixels[1], lazy.pixels())
        prints.add(files.fingerprint)
        if fit == "crop" and resize is None:
            assert memory.pixels.shape == (3, 3, 10, 30)
            continue
        assert memory.pixels.shape == (3, 3, side, side)
        bars = (memory.pixels == 128).all(1)
        assert bars[:, :bar].all() == bars[:, -bar:].all() == (fit == "pad")
        assert not bars[:, bar:-bar].all(2).any()
        if fit == "stretch":
            exact = Image.fromarray(pixels[1]).resize((side, side), Image.Resampling.BICUBIC)
            assert torch.equal(memory.pixels[1], torch.tensor(np.array(exact)).permute(2, 0, 1))
    assert len(prints) == 3


def test_what_the_crop_cuts_away_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(80):
        Image.new("RGB", (40, 20) if i % 2 else (20, 20)).save(root / f"{i}.png")
    for fit in (None, "crop", "pad", "stretch"):
        caplog.clear()
        open_images(DataConfig(spec=str(root), fit=fit))
        said = "leaves out 25% of its area on average; to use whole images: --data.fit pad"
        assert (said in caplog.text) == (fit in (None, "crop"))
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 10, 11, 3), np.uint8))
    open_images(str(tmp_path / "a.npz"))
    assert "leaves out" not in caplog.text
