"""A long folder is listed once; what is kept says the same as a new look, or is not used."""

import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from narrow import present

from headwise.data import DataConfig, ImageFiles, listing, open_images
from headwise.data.folder import FolderSource
from headwise.data.layout import arrange
from headwise.data.listing import kept_listing, list_folder
from headwise.data.names import as_names
from headwise.errors import UserError

SIZE = (4, 4)
FILES = {
    f"{split}/{kind}/{i}.png": SIZE for split in ("train", "val") for kind in "ab" for i in range(3)
}


@pytest.fixture(autouse=True)
def keep_all(monkeypatch):
    monkeypatch.setattr(listing, "KEEP_FROM", 1)


def settle(root: Path) -> None:
    """Let every folder look as if it had changed an hour ago."""
    before = time.time_ns() - 3_600_000_000_000
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        os.utime(folder, ns=(before, before))


def the_same(a, b) -> None:
    for one, other in zip(a, b, strict=True):
        if one is None or other is None:
            assert one is other
            continue
        assert list(one.ids) == list(other.ids)
        assert (one.source, one.classes) == (other.source, other.classes)
        assert one.fingerprint == other.fingerprint
        assert (one.labels is None) == (other.labels is None)
        assert one.labels is None or torch.equal(one.labels, other.labels)


@pytest.mark.parametrize(
    "files",
    [FILES, {"a.png": SIZE, "b.png": SIZE}, {"b/1.png": SIZE, "a/2.png": SIZE, "a.b/3.png": SIZE}],
)
def test_what_is_kept_is_what_was_listed(image_folder, files):
    root = image_folder(files)
    settle(root)
    assert kept_listing(root) is None
    listed = list_folder(root, keep=True)
    the_same(kept_listing(root), listed)
    the_same(list_folder(root, keep=False), listed)


def test_a_kept_listing_looks_at_no_file(image_folder, monkeypatch):
    root = image_folder(FILES)
    settle(root)
    first = open_images(DataConfig(spec=str(root), resident_mib=0))
    monkeypatch.setattr(listing, "walk", None)
    the_same(open_images(DataConfig(spec=str(root), resident_mib=0)), first)
    with pytest.raises(TypeError):
        open_images(DataConfig(spec=str(root), cache=False))


@pytest.mark.parametrize("change", ["add", "remove", "rename", "folder", "replace", "link"])
def test_any_change_of_names_is_seen(image_folder, tmp_path, change):
    root = image_folder(FILES)
    linked = image_folder({"elsewhere/0.png": SIZE}) / "elsewhere"
    (root / "train" / "c").symlink_to(linked.rename(tmp_path / "elsewhere"))
    settle(root)
    settle(root / "train" / "c")
    list_folder(root, keep=True)
    assert kept_listing(root) is not None
    here = root / "train" / "a"
    match change:
        case "add":
            shutil.copy(here / "0.png", here / "9.png")
        case "remove":
            (here / "0.png").unlink()
        case "rename":
            (here / "0.png").rename(here / "9.png")
        case "folder":
            (root / "val").rename(root / "test")
        case "replace":  # as a program does that writes a new file and renames it
            shutil.copy(here / "0.png", here / "new")
            (here / "new").rename(here / "0.png")
        case "link":
            shutil.copy(here / "0.png", root / "train" / "c" / "9.png")
    assert kept_listing(root) is None
    fresh = open_images(DataConfig(spec=str(root), cache=False, resident_mib=0))
    assert list(open_images(DataConfig(spec=str(root), resident_mib=0)).train.ids) == list(
        fresh.train.ids
    )


def test_a_folder_that_changed_just_now_is_not_kept(image_folder):
    root = image_folder(FILES)
    list_folder(root, keep=True)
    assert kept_listing(root) is None


def test_short_listings_are_made_anew(image_folder, monkeypatch):
    monkeypatch.setattr(listing, "KEEP_FROM", len(FILES) + 1)
    root = image_folder(FILES)
    settle(root)
    list_folder(root, keep=True)
    assert kept_listing(root) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_listing_is_made_again(image_folder, cache_folder, caplog, damage):
    root = image_folder(FILES)
    settle(root)
    listed = list_folder(root, keep=True)
    (path,) = cache_folder.glob("listing-*.npz")
    data = bytearray(path.read_bytes())
    match damage:
        case "flip":
            data[data.index(b"train/a/0.png") + 6] ^= 1
        case "cut":
            del data[len(data) // 2 :]
        case "empty":
            data.clear()
    path.write_bytes(data)
    assert kept_listing(root) is None
    assert "damaged" in caplog.text
    list_folder(root, keep=True)
    the_same(kept_listing(root), listed)


def test_names_that_are_not_utf8(image_folder):
    root = image_folder({"a.png": SIZE, "b.png": SIZE})
    os.rename(os.fsencode(root / "a.png"), os.fsencode(root) + b"/\xff.png")
    settle(root)
    listed = list_folder(root, keep=True)
    kept = present(kept_listing(root))
    the_same(kept, listed)
    assert isinstance(kept.train, ImageFiles)
    assert kept.train.read(1).size == SIZE
    assert os.fsencode(kept.train.ids[1]) == b"\xff.png"


@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"]))), data=st.data())
def test_names_are_a_list_of_strings(names, data):
    table = as_names(names)
    assert list(table) == names
    assert len(table) == len(names)
    assert as_names(table) is table
    part = data.draw(st.slices(len(names)))
    assert list(table[part]) == names[part]
    if names:
        index = data.draw(st.lists(st.integers(0, len(names) - 1)))
        chosen = table.select(np.array(index, np.int64))
        assert list(chosen) == [names[i] for i in index]
        assert list(pickle.loads(pickle.dumps(chosen))) == list(chosen)
        assert table[-1] == names[-1]
    with pytest.raises(IndexError):
        table[len(names)]


FOLDERS = st.lists(st.sampled_from(["a", "a-b", "train", "Test", "val"]), max_size=3).map(tuple)


@given(paths=st.sets(st.tuples(FOLDERS, st.sampled_from("xyz")), min_size=1, max_size=9))
def test_folders_around_everything_are_passed_over(paths):
    """Oracle: the parts of every path, one after another."""
    listed = ["/".join([*folders, f"{name}.png"]) for folders, name in paths]
    try:
        ids = arrange(FolderSource(Path("x"), "", ""), listed, "x").train.ids
    except UserError:  # test has classes that train lacks
        reject()
    parts = [path.split("/") for path in sorted(listed)]
    while all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    tops = {p[0].lower() for p in parts if len(p) > 1}
    own = "train" in tops and tops & {"test", "val"}
    kept = [p for p in parts if len(p) > 1 and p[0].lower() == "train"] if own else parts
    assert [id.split("/")[-len(p) :] for id, p in zip(ids, kept, strict=True)] == kept
