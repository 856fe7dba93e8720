import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    """Every test has a cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEADWISE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data():
    """The folder with real images, which not every machine has."""
    repository = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("HEADWISE_DATA") or repository.parent / "shared" / "data")

    def path(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"{name} not present")
        return folder / name

    return path


@pytest.fixture
def image_folder(tmp_path):
    """Write noise images, lossless: `image_folder({"cat/1.png": (height, width)})`."""

    def write(files: dict[str, tuple[int, int]]) -> Path:
        root = tmp_path / "images"
        for seed, (name, (height, width)) in enumerate(files.items()):
            pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return root

    return write
