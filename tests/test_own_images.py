"""A run knows its images: what it saw is on record, and changes are said before they matter."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headwise import EvaluateConfig, compare, embed, evaluate, open_images, pretrain, resume
from headwise.augment import AugmentConfig
from headwise.cli import main as cli
from headwise.comparison import compare as comparing
from headwise.comparison.compare import CompareConfig, resume_comparison
from headwise.data import DataConfig, Splits
from headwise.data.marks import marks_of
from headwise.data.record import (
    HANDED_OVER,
    changes,
    moved,
    read_record,
    same_reading,
    same_source,
    seen,
    write_record,
)
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.evaluation.evaluate import measure
from headwise.evaluation.protocols.targets import open_target
from headwise.files import read_json, write_json
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.model.trained import data_of, open_trained
from headwise.report import evaluation_text, write_run_report
from headwise.runs.directory import Run

CONFIG = PretrainConfig(
    augment=AugmentConfig(size=8),
    encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 8, 8)),
    head=HeadConfig(name="mlp", output_size=8),
    epochs=2,
    batch_size=10,
    device="cpu",
    precision="float32",
    knn_every=0,
    keep_checkpoints=9,
)
QUICK = EvaluateConfig(protocols=("knn",), taps=("h",), baselines=False, device="cpu")


def save(path: Path, seed: int, width: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def photos(root: Path, *, wider: int = 0) -> Path:
    """Two classes of twenty images; every other one `wider`, so that they stay files."""
    for place, name in enumerate(("cat", "dog")):
        for i in range(20):
            save(root / name / f"{i:02}.png", 100 * place + i, 8 + wider * (i % 2))
    return root


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a run on them, whose test split is drawn with another seed."""
    folder = tmp_path_factory.mktemp("original")
    data = DataConfig(spec=str(photos(folder / "photos")), split_seed=5)
    pretrain(dataclasses.replace(CONFIG, data=data), folder / "run", quiet=True)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it: photos and run may be changed."""
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    config = read_json(copy / "run" / "config.json")
    config["data"]["spec"] = str(copy / "photos")
    write_json(copy / "run" / "config.json", config)
    record = read_json(copy / "run" / "images.json")
    record["data"]["spec"] = record["path"] = str(copy / "photos")
    write_json(copy / "run" / "images.json", record)
    return copy


def stopped(run: Path) -> Path:
    """The run as if it had stopped after its first epoch."""
    (run / "DONE").unlink()
    (run / "encoder.safetensors").unlink()
    shutil.rmtree(max((run / "checkpoints").glob("step-*")))
    return run


def test_a_run_keeps_what_it_saw(original: Path) -> None:
    record = read_record(original / "run")
    assert record is not None
    assert (record.path, record.data.split_seed) == (str(original / "photos"), 5)
    assert (record.split_rule, record.classes) == (
        "drawn, about 0.2 of every class, seed 5",
        ("cat", "dog"),
    )
    train, test = open_images(record.data)
    assert test is not None
    assert record.test is not None
    assert (record.train.images, record.test.images) == (len(train), len(test))
    with np.load(original / "run" / "images.npz") as lists:
        assert lists["train.names"].tobytes().decode() == "".join(train.ids)
        assert lists["train.lengths"].tolist() == [len(id) for id in train.ids]
        assert test.labels is not None
        assert lists["test.labels"].tolist() == test.labels.tolist()


def overwrite(root: Path) -> None:
    save(root / "dog" / "03.png", 999)


def rename(root: Path) -> None:
    (root / "cat" / "03.png").rename(root / "cat" / "new name.png")


def add_class(root: Path) -> None:
    save(root / "cow" / "1.png", 998)
    save(root / "cow" / "2.png", 997)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: save(root / "cat" / "99.png", 999), "1 added (cat/99.png);"),
        (lambda root: (root / "dog" / "00.png").unlink(), "1 removed (dog/00.png);"),
        (rename, "1 renamed (cat/new name.png);"),
        (overwrite, "1 overwritten (dog/03.png);"),
        (add_class, "2 added (cow/2.png, cow/1.png), class cow added;"),
        (lambda root: (root / "cat").rename(root / "cats"), "20 renamed (cats/00.png, "),
    ],
    ids=["added", "removed", "renamed", "overwritten", "class", "renamed class"],
)
def test_changed_images_end_in_one_line(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    words: str,
) -> None:
    run = folder / "run"
    change(folder / "photos")
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(run), "--protocols", "knn", "--device", "cpu"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{run} must be those of pretraining; they have changed: {words}" in line
    assert "--accept-changed-data" in line
    assert not (run / "results.json").exists()
    evaluate(run, config=QUICK, accept_changed_data=True)
    assert words[:-1] in caplog.text
    before = {path: path.read_bytes() for path in stopped(run).rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="must go on with the images that it began with") as caught:
        resume(run, quiet=True)
    assert words in str(caught.value)
    assert before == {path: path.read_bytes() for path in before}


def test_a_copy_with_other_times_is_no_change(folder: Path) -> None:
    """Files are known by their content: a restored backup or a faster disk changes nothing."""
    run, whole = stopped(folder / "run"), (folder / "run" / "encoder.safetensors")
    shutil.copytree(folder / "photos", folder / "elsewhere", copy_function=shutil.copyfile)
    shutil.rmtree(folder / "photos")
    for call in (lambda: resume(run, quiet=True), lambda: data_of(Run(run))):
        with pytest.raises(UserError, match=r"must be at .*photos; nothing is there; .* --data"):
            call()
    resume(run, data=str(folder / "elsewhere"), quiet=True)
    assert whole.exists()
    # It has learned the new place.
    evaluate(run, config=QUICK)
    assert Run(run).sections[0].data.seen_images == 0


def test_a_relative_path_is_found_from_another_working_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("config.json", "images.json"):
        values = read_json(folder / "run" / name)
        values["data"]["spec"] = "photos"
        write_json(folder / "run" / name, values)
    monkeypatch.chdir(folder)
    own = data_of(Run(folder / "run"))
    assert own.spec == "photos"
    photos(tmp_path / "trap" / "photos")
    save(tmp_path / "trap" / "photos" / "cat" / "new.png", 1)
    monkeypatch.chdir(tmp_path / "trap")
    assert data_of(Run(folder / "run")) == dataclasses.replace(own, spec=str(folder / "photos"))
    # Named here, it is the one that is here.
    assert data_of(Run(folder / "run"), "photos") == DataConfig(spec="photos")


def test_the_same_source_keeps_the_split_of_pretraining(folder: Path) -> None:
    run = Run(folder / "run")
    same = data_of(run, f"{folder}/run/../photos")
    assert (same.split_seed, same.test_fraction, same.limit) == (5, 0.2, None)
    assert data_of(run, "builtin:shapes") == DataConfig()
    record = read_record(run.path)
    assert record is not None
    assert same_source(record, str(folder / "photos"))
    assert same_reading(record, dataclasses.replace(same, limit=7, resize=4))
    assert not same_reading(record, dataclasses.replace(same, split_seed=0))
    limited = dataclasses.replace(record, data=dataclasses.replace(record.data, limit=9))
    assert not same_reading(limited, same)
    # A limit opens fewer images, which is no change.
    evaluate(run.path, dataclasses.replace(same, limit=7), QUICK)
    (section,) = run.sections
    assert (section.data.test_images, section.data.seen_images) == (7, 0)


@pytest.mark.parametrize("wider", [0, 3], ids=["memory", "files"])
def test_test_images_that_pretraining_saw_are_counted(
    folder: Path, caplog: pytest.LogCaptureFixture, wider: int
) -> None:
    run = Run(folder / "run")
    if wider:
        write_record(run.path, open_images(str(photos(folder / "photos", wider=wider))))
        write = read_json(run.path / "images.json")
        assert write["data"]["split_seed"] == 0
    trained_on = open_images(DataConfig(spec=str(folder / "photos"), split_seed=0 if wider else 5))
    shutil.copytree(folder / "photos", folder / "other")  # under another name, and with others
    for i in range(20):
        save(folder / "other" / "dog" / f"more-{i}.png", 700 + i, 8 + wider)
    other = DataConfig(spec=str(folder / "other"), split_seed=1)
    test = open_images(other).test
    assert test is not None
    expected = len({*test.ids} & {*trained_on.train.ids})
    assert 0 < expected < len(test)
    words = f"{expected} of {len(test)} test images were among the images of pretraining"
    measured = measure(run.path, other, QUICK)
    assert words in caplog.text
    target = open_target(f"other={folder / 'photos'}", run=run)
    again = open_images(str(folder / "photos")).test
    assert again is not None
    assert target.seen_images == len({*again.ids} & {*trained_on.train.ids})
    (section,) = run.sections
    assert section.data.seen_images == expected
    assert read_json(run.path / "results.json")["sections"][0]["data"]["seen_images"] == expected
    assert words in evaluation_text(run.path, measured)
    assert words in write_run_report(run.path).read_text()


def test_marks_follow_content_in_memory_in_files_and_in_zips(tmp_path: Path) -> None:
    root = photos(tmp_path / "a")
    specs = [str(root), shutil.make_archive(str(tmp_path / "z"), "zip", root)]
    plain = DataConfig(spec="")
    settings = [
        plain,
        dataclasses.replace(plain, resident_mib=0),
        dataclasses.replace(plain, resize=4),
        dataclasses.replace(plain, cache=False),
    ]
    opened = [
        open_images(dataclasses.replace(one, spec=spec)).train for spec in specs for one in settings
    ]
    for images in opened:
        assert np.array_equal(marks_of(images), marks_of(opened[0]))
    assert len({*marks_of(opened[0]).tolist()}) == len(opened[0])


def test_images_handed_over_must_be_handed_over_again(tmp_path: Path) -> None:
    """`config.data` is left alone, and says builtin:shapes."""
    every = open_images(DataConfig(spec="builtin:digits", limit=40))
    assert every.test is not None
    some = torch.arange(30)
    mine = Splits(every.train.select(some), every.test.select(some))
    run = pretrain(CONFIG, tmp_path / "run", mine, quiet=True)
    assert read_json(run.path / "config.json")["data"]["spec"] == HANDED_OVER
    again = "were handed over in Python; hand them over again with images=, or name images with"
    with pytest.raises(UserError, match=again):
        evaluate(run.path, config=QUICK)
    evaluate(run.path, config=QUICK, images=mine)
    assert [s.data.spec for s in run.sections] == [HANDED_OVER]
    evaluate(run.path, "builtin:digits", QUICK)
    stopped(run.path)
    with pytest.raises(UserError, match=again):
        resume(run.path, quiet=True)
    with pytest.raises(UserError, match=r"they have changed: 20 added \(digits:"):
        resume(run.path, every, quiet=True)
    assert resume(run.path, mine, quiet=True).done


def test_images_opened_otherwise_are_recorded_as_they_were_opened(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    opened = DataConfig(spec="builtin:digits", limit=30)
    run = pretrain(config, tmp_path / "run", open_images(opened), quiet=True)
    record = read_record(run.path)
    assert record is not None
    assert (record.data, record.path) == (opened, None)
    evaluate(run.path, config=QUICK)
    assert run.sections[0].data.spec == "builtin:digits"


def test_a_comparison_goes_on_with_its_own_images_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_compare", lambda *_: {})
    root = photos(tmp_path / "photos")
    base = dataclasses.replace(CONFIG, epochs=1, data=DataConfig(spec=str(root)))
    config = CompareConfig(pretrain=base, arms=("identity",))
    out = tmp_path / "heads"
    compare(config, out, quiet=True)
    save(root / "cat" / "99.png", 999)
    with pytest.raises(UserError, match=r"have changed: 1 added \(cat/99.png\)"):
        resume_comparison(out, quiet=True)
    (root / "cat" / "99.png").unlink()
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="nothing is there"):
        resume_comparison(out, quiet=True)
    resume_comparison(out, data=str(tmp_path / "elsewhere"), quiet=True)
    record = read_record(out)
    assert record is not None
    assert record.path == str(tmp_path / "elsewhere")


def test_embed_says_what_has_changed_in_the_images_of_the_run(folder: Path) -> None:
    run, table = folder / "run", folder / "h.parquet"
    assert embed(run, str(folder / "photos"), table, workers=0, quiet=True) == 40
    table.unlink()
    overwrite(folder / "photos")
    with pytest.raises(UserError, match=r"1 overwritten \(dog/03.png\); .*--accept-changed-data"):
        embed(run, str(folder / "photos"), table, workers=0, quiet=True)
    assert not list(folder.glob("h.parquet*"))
    settings: dict[str, Any] = {"workers": 0, "quiet": True, "accept_changed_data": True}
    assert embed(run, str(folder / "photos"), table, **settings) == 40


def test_an_image_that_training_skipped_is_no_change(tmp_path: Path) -> None:
    """Its header is intact, so it is skipped only where all of it is read."""
    for i in range(24):
        save(tmp_path / f"photos/{'ab'[i % 2]}/{i:02}.png", i)
    whole = tmp_path / "photos/a/00.png"
    whole.write_bytes(whole.read_bytes()[:-40])
    data = DataConfig(spec=str(tmp_path / "photos"), max_bad_fraction=0.1, test_fraction=0.0)
    pretrain(dataclasses.replace(CONFIG, data=data, epochs=1), tmp_path / "run", quiet=True)
    table = tmp_path / "h.parquet"
    assert embed(tmp_path / "run", data, table, workers=0, quiet=True) == 23


def test_a_run_without_a_record_opens_without_a_check(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = stopped(folder / "run")
    for name in ("images.json", "images.npz"):
        (run / name).unlink()
    save(folder / "photos" / "cat" / "99.png", 999)
    assert seen(run, open_images(str(folder / "photos")).train) is None
    resume(run, quiet=True)
    assert open_trained(run, device="cpu").data.seen_images is None
    assert "0.1" not in caplog.text
    # Version 0.1 drew other images.
    config = read_json(run / "config.json")
    del config["version"]
    write_json(run / "config.json", config)
    with caplog.at_level(logging.WARNING):
        open_trained(run, device="cpu")
    assert "version 0.1, which drew other test images" in caplog.text
    with pytest.raises(UserError, match="drew other training images"):
        resume(stopped(run), quiet=True)


def test_a_damaged_record_is_one_line(folder: Path) -> None:
    run = folder / "run"
    lists = run / "images.npz"
    lists.write_bytes(lists.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"images\.npz"):
        evaluate(run, config=QUICK)
    resume(stopped(run), quiet=True)  # the fingerprints are enough
    lists.unlink()
    with pytest.raises(UserError, match=r"images\.npz must hold the list of the run's images"):
        evaluate(run, config=QUICK)
    (run / "images.json").write_text("{}")
    with pytest.raises(UserError, match=r"images\.json must have a key 'data'"):
        evaluate(run, config=QUICK)


def test_other_labels_and_another_order_are_changes(tmp_path: Path) -> None:
    digits = open_images(DataConfig(spec="builtin:digits", limit=40)).train
    write_record(tmp_path, Splits(digits, None))
    assert changes(tmp_path, Splits(digits, None)) == ""
    assert digits.labels is not None
    other = dataclasses.replace(digits, labels=digits.labels.flip(0))
    assert "with another label (digits:" in changes(tmp_path, Splits(other, None))
    turned = digits.select(torch.arange(len(digits)).flip(0))
    assert changes(tmp_path, Splits(turned, None)) == "the same images in another order"
    half = Splits(digits.select(torch.arange(0, 40, 2)), digits.select(torch.arange(1, 40, 2)))
    assert "20 moved between training and test (digits:" in changes(tmp_path, half)
    assert changes(tmp_path, half, some=True) == ""
    moved(tmp_path, "elsewhere")
    record = read_record(tmp_path)
    assert record is not None
    assert record.path == str(Path("elsewhere").absolute())
