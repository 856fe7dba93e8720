"""A damaged or hostile source is one line, never a traceback, a bomb or a started program."""

import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import mutated
from PIL import Image
from sources import png, write_folder

from headwise.data import DataConfig, ImageFiles, open_images, parquet
from headwise.errors import UserError

MUTATIONS = 100


def npz() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    np.savez_compressed(
        file, images=pixels, labels=np.array([0, 1] * 3), classes=np.array(["a", "b"])
    )
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        for i in range(6):
            members.writestr(f"{'ab'[i % 2]}/{i}.png", png(i))
    return file.getvalue()


def table() -> bytes:
    file = io.BytesIO()
    columns = {"image": [png(i) for i in range(6)], "label": [0, 1] * 3}
    hub = '{"info": {"features": {"label": {"names": ["a", "b"]}}}}'
    rows = pa.table(columns).replace_schema_metadata({"huggingface": hub})
    pq.write_table(rows, file, row_group_size=3)
    return file.getvalue()


@pytest.mark.parametrize(("ending", "make"), [("npz", npz), ("zip", zipped), ("parquet", table)])
@pytest.mark.parametrize("resident_mib", [0, 4096])
def test_mutations_are_a_right_result_or_one_line(tmp_path, ending, make, resident_mib):
    data, rng = make(), np.random.default_rng(1)
    outcomes, lines = {"read": 0, "refused": 0}, 1
    for i in range(MUTATIONS // 2):
        path = tmp_path / f"{i}.{ending}"
        path.write_bytes(mutated(data, rng))
        config = DataConfig(
            spec=str(path), max_bad_fraction=0.9, cache=False, resident_mib=resident_mib
        )
        try:
            for images in open_images(config, workers=1):
                for k in range(len(images or ())):
                    if isinstance(images, ImageFiles):
                        images.read(k)
            outcomes["read"] += 1
        except (UserError, OSError) as error:
            refused = str(error)
            outcomes["refused"] += 1
            lines = max(lines, len(refused.splitlines()))
    assert min(outcomes.values()) > 0, outcomes
    assert lines == 1


def error_of(path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        open_images(DataConfig(spec=str(path), **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("n", [2**27, 10**13, 2**58])
def test_an_array_that_claims_more_than_its_bytes(tmp_path, n):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", npy_header(f"({n}, 16, 16)") + bytes(512))
    assert "claims" in error_of(path)


def zeros(path, name: str, head: bytes, mib: int) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open(name, "w", force_zip64=True) as member,
    ):
        member.write(head)
        for _ in range(mib):
            member.write(bytes(2**20))


def test_zeros_that_unpack_to_far_more(tmp_path):
    zeros(tmp_path / "a.npz", "images.npy", npy_header(f"({2**27}, 1, 1)"), 128)
    assert "would unpack to 128 MiB" in error_of(tmp_path / "a.npz")
    zeros(tmp_path / "a.zip", "a.bmp", b"", 128)
    assert "would unpack to 128 MiB" in error_of(tmp_path / "a.zip")


@pytest.mark.parametrize("claim", [2**31, 2**32 - 2])
def test_a_zip_member_that_claims_more_than_the_file(tmp_path, claim):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.png", png(0))
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = claim.to_bytes(4, "little") * 2
    path.write_bytes(data)
    assert "truncated" in error_of(path)


def test_more_rows_than_bytes(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([None] * 100_000, pa.binary())}), path)
    assert "claims 100000 rows" in error_of(path)


@pytest.mark.parametrize("hub", ["{", "[]", '{"info": 3}', '{"info": {"features": {"label": 7}}}'])
def test_metadata_of_the_hub_that_are_none(tmp_path, hub):
    rows = pa.table({"image": [png(0), png(1)], "label": [0, 1]})
    pq.write_table(rows.replace_schema_metadata({"huggingface": hub}), tmp_path / "a.parquet")
    assert "schema" in error_of(tmp_path / "a.parquet")


def test_eps_in_a_png_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: pytest.fail("a program started"))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program started"))
    root = write_folder(tmp_path / "x", ["a.png"])
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (root / "b.png").write_bytes(eps)
    train = open_images(DataConfig(spec=str(root), max_bad_fraction=0.5)).train
    assert list(train.ids) == ["a.png"]
    assert train.skipped == (("b.png", "not an image of a known format"),)


def damaged_tiff() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "TIFF", compression="jpeg")
    data = bytearray(file.getvalue())
    middle = len(data) // 3
    data[middle : middle + 200] = b"\xff\xd8\xff\x00" * 50
    return bytes(data)


def test_libraries_write_nothing_to_standard_error(tmp_path):
    root = write_folder(tmp_path / "x", ["a.png"])
    (root / "b.tif").write_bytes(damaged_tiff())
    script = (
        "from headwise.data import DataConfig, open_images\n"
        f"open_images(DataConfig(spec={str(root)!r}, max_bad_fraction=1.0, cache=False))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith(str(root))]
    assert lines == []


def test_rows_in_random_order_load_each_group_once(tmp_path, monkeypatch):
    rows = [png(i) for i in range(40)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet", row_group_size=4)
    train = open_images(DataConfig(spec=str(tmp_path), resident_mib=0)).train
    assert isinstance(train, ImageFiles)
    monkeypatch.setattr(parquet, "_loaded", {})
    loads = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda *a, **k: (loads.append(1), real(*a, **k))[1]
    )
    order = np.random.default_rng(0).permutation(40).tolist()
    for i in order:
        train.read(i)
    assert len(loads) == 10
    monkeypatch.setattr(parquet, "LOADED_BYTES", 0)
    for i in order:
        train.read(i)
    assert len(parquet._loaded) == 2
