"""`evaluate` as a whole: what it writes, over seeds, against another run, and what it refuses."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow import present
from PIL import Image

from headwise import EvaluateConfig, evaluate, pretrain
from headwise.augment import AugmentConfig
from headwise.data import DataConfig, Splits, open_images, opening
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.evaluation import config as protocols
from headwise.evaluation.config import PROTOCOLS, describe
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.protocols.finetune import FinetuneConfig
from headwise.evaluation.protocols.forgetting import ForgettingConfig
from headwise.evaluation.protocols.linear_sgd import LinearSgdConfig
from headwise.evaluation.protocols.semi import SemiConfig
from headwise.evaluation.protocols.targets import open_target
from headwise.evaluation.protocols.transfer import TransferConfig
from headwise.evaluation.protocols.transformations import TransformationsConfig
from headwise.fusion.lab import measure_fusion
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.report import write_run_report
from headwise.runs.directory import Run
from headwise.runs.results import to_json
from headwise.runs.sections import DataIdentity

CONFIG = PretrainConfig(
    data=DataConfig(spec="builtin:shapes", limit=120),
    augment=AugmentConfig(size=16),
    encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 16, 16)),
    head=HeadConfig(name="transformer", depth=1, width=16, num_heads=2, output_size=8),
    epochs=1,
    batch_size=20,
    device="cpu",
    precision="float32",
    knn_every=0,
)
QUICK = EvaluateConfig(protocols=("knn", "linear_10"), taps=("h", "z"), baselines=False)


@pytest.fixture(scope="module")
def images() -> Splits:
    return open_images(CONFIG.data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, images: Splits) -> tuple[Path, Path]:
    """Two runs of one recipe with different seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        config = dataclasses.replace(CONFIG, seed=seed)
        pretrain(config, folder / str(seed), images, quiet=True)
    return folder / "0", folder / "1"


def test_all_protocols_from_one_call(
    runs: tuple[Path, Path], images: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    config = EvaluateConfig(
        protocols=("all",),
        taps=("all",),
        linear_sgd=LinearSgdConfig(epochs=1),
        semi=SemiConfig(epochs=(1, 1), min_steps=1),
        finetune=FinetuneConfig(epochs=1, scratch_epochs=1, lrs=(0.05,)),
        forgetting=ForgettingConfig(limit=40),
        transfer=TransferConfig(targets=("digits=builtin:digits",), limit=40, steps=1, lrs=(0.05,)),
        transformations=TransformationsConfig(train=100, test=60),
    )
    before = (runs[0] / "encoder.safetensors").read_bytes()
    results = evaluate(runs[0], config=config, images=images)
    assert {result["protocol"] for result in results.values()} == set(PROTOCOLS)
    assert {"knn/f1", "knn/f4", "knn/h", "knn/g1", "knn/z", "knn/pixels"} <= set(results)
    for name, result in results.items():
        assert name == result.key
        assert result.n > 0, name
        assert (result.seeds, result.version) == ((0,), 1), name
        assert describe(result.protocol).label(result)
    file = json.loads((runs[0] / "results.json").read_text())
    assert file["schema"] == 2
    (section,) = file["sections"]
    assert section["results"] == {key: to_json(result) for key, result in results.items()}
    (section,) = Run.open(runs[0]).sections
    assert section.results == results
    assert section.data == DataIdentity(
        spec="builtin:shapes",
        fingerprint=present(images.test).fingerprint,
        train_fingerprint=images.train.fingerprint,
        limit=120,
        classes=tuple(images.train.classes),
        seen_images=0,
        train_images=len(images.train),
        test_images=len(present(images.test)),
    )
    assert (runs[0] / "encoder.safetensors").read_bytes() == before
    arrays = Run.open(runs[0]).arrays(section.data)
    assert arrays["each/linear/h"].mean() == pytest.approx(results["linear/h"]["value"])
    assert arrays["each/constant"].mean() == pytest.approx(results["linear/h"].chance)
    assert arrays["truth/constant"].tolist() == present(present(images.test).labels).tolist()
    page = write_run_report(runs[0]).read_text()
    assert "<svg" in page

    evaluate(runs[1], config=QUICK, images=images)
    config = dataclasses.replace(QUICK, against=runs[1])
    compared = evaluate(runs[0], config=config, images=images)
    test = compared["difference/knn/h"]
    theirs = Run.open(runs[1]).sections[0].results["knn/h"].value
    assert test["value"] == pytest.approx(compared["knn/h"]["value"] - theirs)
    assert 0 < test["p_value"] <= 1
    assert test.verdict is None, "one run of each ranks nothing"
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not warned, "nothing is left out here"


def test_seeds(runs: tuple[Path, Path], images: Splits) -> None:
    one, other, both = (
        evaluate(runs[1], config=dataclasses.replace(QUICK, seed=seed, seeds=seeds), images=images)
        for seed, seeds in ((0, 1), (1, 1), (0, 2))
    )
    values = torch.tensor([found["linear_10/h"]["value"] for found in (one, other)])
    assert both["linear_10/h"]["value"] == pytest.approx(values.mean().item())
    assert both["linear_10/h"]["std"] == pytest.approx(values.std().item())
    assert both["linear_10/h"]["seeds"] == [0, 1]
    assert both["knn/h"]["seeds"] == [0], "nothing is drawn"
    low, high = both["linear_10/h"]["interval"]
    assert low <= both["linear_10/h"]["value"] <= high


def test_a_second_data_set_has_a_section_of_its_own(
    runs: tuple[Path, Path], images: Splits, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(runs[1], tmp_path / "run"))
    (run.path / "results.json").unlink(missing_ok=True)
    (run.path / "evaluation.npz").unlink(missing_ok=True)
    config = dataclasses.replace(QUICK, protocols=("knn", "linear"))
    first = evaluate(run.path, config=config, images=images)
    (before,) = run.sections
    arrays = run.arrays(before.data)
    digits = DataConfig(spec="builtin:digits", limit=60)
    second = evaluate(run.path, digits, config)
    shapes, other = run.sections
    assert shapes == before
    assert shapes.results == first
    assert (other.data.spec, other.results) == ("builtin:digits", second)
    assert shapes.data.classes == tuple(images.train.classes)
    assert other.data.classes == tuple("0123456789")
    assert first["knn/h"] != second["knn/h"]
    again = run.arrays(shapes.data)
    assert arrays.keys() == again.keys() == run.arrays(other.data).keys()
    assert all((arrays[name] == again[name]).all() for name in arrays)
    # The other run has been evaluated on shapes alone: nothing of digits can be compared.
    evaluate(runs[0], config=config, images=images)
    against = dataclasses.replace(config, against=runs[0])
    assert not [r for r in evaluate(run.path, digits, against).values() if r.against]
    assert "difference/knn/h" in evaluate(run.path, config=against, images=images)
    shapes, other = run.sections
    assert "difference/knn/h" in shapes.results
    assert "difference/knn/h" not in other.results


def test_what_differs_is_not_compared(
    runs: tuple[Path, Path], images: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, other = (shutil.copytree(run, tmp_path / run.name) for run in runs)
    for run in (mine, other):
        (run / "results.json").unlink(missing_ok=True)
    config = dataclasses.replace(QUICK, protocols=("knn", "linear_sgd"), taps=("h",))
    one, two = (
        dataclasses.replace(config, linear_sgd=LinearSgdConfig(epochs=epochs)) for epochs in (1, 2)
    )
    evaluate(other, config=one, images=images)
    same = evaluate(mine, config=dataclasses.replace(one, against=other), images=images)
    assert same["difference/linear_sgd/h"].p_value is not None
    assert same["linear_sgd/h"].settings["config"]["epochs"] == 1
    # Another setting: the pair is named with it, and the earlier difference is gone.
    results = evaluate(mine, config=dataclasses.replace(two, against=other), images=images)
    assert "difference/knn/h" in results
    assert "difference/linear_sgd/h" not in results
    assert "difference/linear_sgd/h" not in Run(mine).sections[0].results
    assert "linear_sgd_per_class/h (epochs: 2 here, 1 there)" in caplog.text
    # Other training images: another section, and nothing to compare.
    few = Splits(images.train.select(torch.arange(60)), images.test)
    caplog.clear()
    results = evaluate(mine, config=dataclasses.replace(QUICK, against=other), images=few)
    assert not [result for result in results.values() if result.against]
    assert "60 training images" in caplog.text
    assert [s.data.train_images for s in Run(mine).sections] == [len(images.train), 60]


def test_images_without_labels_have_a_geometry(
    runs: tuple[Path, Path], images: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    bare = dataclasses.replace(images.train, labels=None, classes=(), factors={})
    config = EvaluateConfig(
        protocols=("all",),
        taps=("h",),
        baselines=False,
        transformations=TransformationsConfig(train=60, test=40),
    )
    results = evaluate(runs[1], config=config, images=Splits(bare, None))
    assert {result["protocol"] for result in results.values()} == {"geometry", "transformations"}
    assert "separation/h" not in results
    assert any("labels" in record.message for record in caplog.records)
    with pytest.raises(UserError, match="labels"):
        evaluate(runs[1], config=QUICK, images=Splits(bare, None))


def test_what_the_listing_shows_is_checked_before_images_are_decoded(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        Image.new("RGB", (9, 9), (i, 0, 0)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(opening, "_decoded", lambda *_: pytest.fail("decoded"))
    unlabelled, one = str(tmp_path), DataConfig(spec="builtin:digits", limit=1)
    for wrong, message in ((unlabelled, "the probes need labels"), (one, "at least 2 classes")):
        with pytest.raises(UserError, match=message):
            evaluate(runs[1], wrong, QUICK)
    with pytest.raises(UserError, match="fusion needs labels"):
        measure_fusion(runs[1], unlabelled)
    with pytest.raises(UserError, match="it must have labelled training and test images"):
        open_target(f"x={unlabelled}")


def test_a_protocol_that_changes_the_model_is_stopped(
    runs: tuple[Path, Path], images: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(trained: ExtractedRun, *, seed: int):
        next(trained.model.encoder.buffers()).add_(1)
        return iter(())

    monkeypatch.setattr(protocols, "leakage", spoil)
    config = EvaluateConfig(protocols=("leakage",))
    with pytest.raises(AssertionError, match="changed the model"):
        evaluate(runs[1], config=config, images=images)


def test_what_cannot_be_asked(runs: tuple[Path, Path], images: Splits, tmp_path: Path) -> None:
    def asked(**changes: Any) -> EvaluateConfig:
        return dataclasses.replace(QUICK, **changes)

    with pytest.raises(UserError, match="f1, f2"):
        evaluate(runs[1], config=asked(taps=("f9",)), images=images)
    with pytest.raises(UserError, match=r"--transfer\.targets"):
        evaluate(runs[1], config=asked(protocols=("transfer",)), images=images)
    with pytest.raises(UserError, match="seeds"):
        asked(seeds=0)
    fresh = tmp_path / "fresh"
    pretrain(CONFIG, fresh, images, quiet=True)
    with pytest.raises(UserError, match="first: headwise evaluate"):
        evaluate(runs[1], config=asked(against=fresh), images=images)
    (fresh / "results.json").write_text('{"knn/h": {"value": 0.5}}')
    with pytest.raises(UserError, match="schema"):
        evaluate(fresh, config=QUICK, images=images)
    factorless = Splits(*(dataclasses.replace(part, factors={}) for part in images if part))
    with pytest.raises(UserError, match="known factors"):
        evaluate(runs[1], config=asked(protocols=("factors",)), images=factorless)
