"""Encoders and features from anywhere: measured without a run, to the numbers of `evaluate`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import save_file

from headwise import EncoderConfig, EvaluateConfig, HeadConfig, embed, evaluate, pretrain
from headwise.augment import AugmentConfig
from headwise.cli import main as cli
from headwise.data import DataConfig
from headwise.errors import UserError
from headwise.evaluation.elsewhere import evaluate_encoder, evaluate_features
from headwise.model.config import PretrainConfig
from headwise.model.elsewhere import EncoderChoice, open_encoder
from headwise.report import write_run_report
from headwise.report.reading.long import answers
from headwise.runs.directory import Run
from headwise.runs.results import Result

DIGITS = DataConfig(spec="builtin:digits", limit=60)
MEASURED = ("knn", "knn_self", "linear", "geometry")
ON_CPU = EvaluateConfig(protocols=MEASURED, baselines=False, device="cpu")
HERE: dict[str, Any] = {"device": "cpu", "precision": "float32", "quiet": True}
TINY_MODEL = "test_efficientnet_ln"


class Measured(NamedTuple):
    run: Path
    results: dict[str, Result]
    table: Path
    """Of h and z."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A run whose head sees the batch, its numbers, and its table."""
    folder = tmp_path_factory.mktemp("measured")
    config = PretrainConfig(
        data=DIGITS,
        augment=AugmentConfig(size=8),
        encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 16, 16)),
        head=HeadConfig(name="transformer", depth=1, width=16, num_heads=2, output_size=8),
        epochs=1,
        batch_size=20,
        device="cpu",
        precision="float32",
        knn_every=0,
    )
    run = pretrain(config, folder / "run", quiet=True).path
    taps = ("h", "z")
    results = evaluate(run, config=replace(ON_CPU, taps=taps))
    embed(run, DIGITS, folder / "table.parquet", taps=taps, **HERE)
    return Measured(run, results, folder / "table.parquet")


def arrays(folder: Path) -> dict[str, np.ndarray]:
    run = Run(folder)
    return run.arrays(run.sections[0].data)


def same(own: Measured, out: Path, found: dict[str, Result], left_out: set[str]) -> None:
    """The results are those of the run without what needs more, and so is every image's."""
    own_results = {key: result for key, result in own.results.items() if key not in left_out}
    expected = {key: r for key, r in own_results.items() if r.measure != "alignment"}
    assert found.keys() == expected.keys()
    for key, result in found.items():
        assert result.value == pytest.approx(expected[key].value, abs=1e-6), key
    theirs, ours = arrays(out), arrays(own.run)
    each = [name for name in theirs if not name.startswith(("spectrum/", "margins/"))]
    assert {name.partition("/")[0] for name in each} >= {"each", "truth", "names", "predictions"}
    for name in each:
        assert np.array_equal(theirs[name], ours[name]), name


def test_the_table_of_embed_has_the_numbers_of_evaluate(measured: Measured, tmp_path: Path) -> None:
    found = evaluate_features(measured.table, tmp_path / "out", ON_CPU)
    assert "cka/h-z" in found
    same(measured, tmp_path / "out", found, set())


def test_the_exported_encoder_has_the_numbers_of_evaluate(
    measured: Measured, tmp_path: Path
) -> None:
    file, out = measured.run / "encoder.safetensors", tmp_path / "out"
    found = evaluate_encoder(file, DIGITS, out, ON_CPU, precision="float32")
    same(measured, out, found, {key for key in measured.results if not key.endswith("/h")})


def test_a_head_that_sees_the_batch_says_so_in_the_table(measured: Measured) -> None:
    about = json.loads(pq.read_schema(measured.table).metadata[b"headwise"])
    assert about["taps"] == {"h": 16, "z": 8}
    assert about["batch"] == {"images": 512, "views": 1, "order": "shuffled in a split", "seed": 0}
    assert about["split"].startswith("drawn")
    assert pq.read_schema(measured.table).names == ["path", "label", "split", "h", "z"]


def table(rows: int = 40, **changes: Any) -> dict[str, Any]:
    """Two classes that a probe tells apart, three quarters of them for training."""
    labels = np.arange(rows) % 2
    noise = np.random.default_rng(0).normal(size=(rows, 5))
    split = np.where(np.arange(rows) % 4 == 3, "test", "train")
    split[:2] = "test"
    return {"vectors": noise + 4 * labels[:, None], "labels": labels, "split": split} | changes


def test_a_table_made_by_anybody_is_measured_at_h_and_has_a_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    np.savez(tmp_path / "mine.npz", **table())
    found = evaluate_features(tmp_path / "mine.npz", out)
    assert {result.protocol for result in found.values()} == {
        *("knn", "knn_weighted", "knn_self", "linear", "linear_10", "cluster", "geometry")
    }
    assert found["linear/h"].value > 0.9
    assert found["linear/h"].n == 12
    files = {"config.json", "environment.json", "evaluation.npz", "results.json"}
    assert {path.name for path in out.iterdir()} == files
    page = write_run_report(out).read_text()
    assert "A linear probe on" in page
    assert "What was measured" in page
    (answer, *_) = answers([out], ["linear/h"])
    assert (answer.setting, answer.label) == (str(tmp_path / "mine.npz"), "0")
    # More of the same table goes there too, and nothing of another.
    evaluate_features(tmp_path / "mine.npz", out, EvaluateConfig(protocols=("knn",)))
    np.savez(tmp_path / "other.npz", **table(rows=44))
    with pytest.raises(UserError, match="--out must be a new or empty directory"):
        evaluate_features(tmp_path / "other.npz", out)
    with pytest.raises(
        UserError, match=r"must be made by headwise pretrain; it has the results of"
    ):
        evaluate(out)


def test_a_parquet_made_by_anybody_keeps_the_names_of_its_columns(tmp_path: Path) -> None:
    made = table()
    names = np.array(["no", "yes", None], dtype=object)[made["labels"]].tolist()
    names[0] = None  # a row without a label is left out
    rows = made["vectors"].tolist()
    columns = {
        "dino": rows,
        "z": rows,
        "label": names,
        "split": made["split"].tolist(),
        "size": [1] * 40,
    }
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    config = EvaluateConfig(protocols=("knn",))
    found = evaluate_features(tmp_path / "mine.parquet", tmp_path / "out", config)
    assert found.keys() == {"knn/dino", "knn_per_class/dino", "knn/z", "knn_per_class/z"}
    assert found["knn/z"].n == 11
    assert Run(tmp_path / "out").sections[0].data.classes == ("no", "yes")
    config = replace(config, taps=("dino",))
    assert len(evaluate_features(tmp_path / "mine.parquet", tmp_path / "one", config)) == 2


def test_two_tables_of_the_same_images_are_compared(tmp_path: Path) -> None:
    made = table(path=np.array([f"{i}.png" for i in range(40)]))
    np.savez(tmp_path / "a.npz", **made)
    np.savez(tmp_path / "b.npz", **made | {"vectors": made["vectors"][:, :1]})
    config = EvaluateConfig(protocols=("knn",))
    evaluate_features(tmp_path / "a.npz", tmp_path / "a", config)
    config = replace(config, against=tmp_path / "a")
    assert "difference/knn/h" in evaluate_features(tmp_path / "b.npz", tmp_path / "b", config)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in table().items() if key != name}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": (
        table(vectors=np.full((40, 5), np.nan)),
        "vectors has NaN or infinity in 40 of 40 rows",
    ),
    "no vectors": (without("vectors"), "must have a column of vectors"),
    "no labels": (without("labels"), "must have labels, in a column `label`"),
    "no split": (without("split"), "must have a column `split` with train or test"),
    "lengths": (table(labels=np.arange(39) % 2), "vectors 40, labels 39, split 40"),
    "all for training": (table(split=np.full(40, "train")), "rows of both splits"),
    "a third split": (table(split=np.full(40, "val")), "train or test in every row of `split`"),
    "empty labels": (table(labels=np.full(40, "")), "must have labels; all of them are empty"),
    "objects": (table(labels=np.array([{}] * 40)), "must be an .npz file of plain arrays"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_table_that_is_not_whole_is_one_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns, expected = WRONG[kind]
    np.savez(tmp_path / "mine.npz", **columns)
    words = ["--features", str(tmp_path / "mine.npz"), "--out", str(tmp_path / "out")]
    assert expected in said(words, capsys)
    assert not (tmp_path / "out").exists()


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", *words])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--encoder", "timm:resnet81"], "did you mean 'resnet"),
        (["--encoder", "timm:resnet18.nobodys", "--no-pretrained"], "Invalid pretrained tag"),
        (["--encoder", f"timm:{TINY_MODEL}"], "can they be loaded; no network"),
        (
            ["--encoder", "timm:test_vit", "--no-pretrained", "--size", "33"],
            "must take RGB images of 33 px",
        ),
        (["--encoder", "FOLDER/short.pth", "--architecture", TINY_MODEL], "are missing, first"),
        (["--encoder", "FOLDER/wide.pth", "--architecture", TINY_MODEL], "must have the shape"),
        (["--encoder", "FOLDER/code.pth", "--architecture", TINY_MODEL], "without code"),
        (["--encoder", "FOLDER/short.pth"], "--architecture resnet50"),
        (
            ["--encoder", f"timm:{TINY_MODEL}", "--no-pretrained", "--protocols", "leakage"],
            "needs a run",
        ),
        (["--encoder", f"timm:{TINY_MODEL}", "--no-pretrained", "--taps", "z"], "cut points"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_encoders_that_cannot_be_used_are_one_line(
    words: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def made(*_: object, pretrained: bool = False, **__: object) -> Any:
        if pretrained:
            raise OSError("no network")
        return plain(*_, **__)  # type: ignore[arg-type]

    plain = timm.create_model
    monkeypatch.setattr(timm, "create_model", made)
    weights = plain(TINY_MODEL, num_classes=0).state_dict()
    first = next(iter(weights))
    torch.save({k: v for k, v in weights.items() if k != first}, tmp_path / "short.pth")
    torch.save(weights | {first: torch.zeros(3)}, tmp_path / "wide.pth")
    torch.save({"weights": print}, tmp_path / "code.pth")
    typed = [word.replace("FOLDER", str(tmp_path)) for word in words]
    given = [*typed, "--data", "builtin:digits", "--out", str(tmp_path / "out")]
    assert expected in said(given, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["pth", "nested pth", "safetensors", "hub folder"])
def test_weights_of_others_are_loaded_with_their_normalisation(kind: str, tmp_path: Path) -> None:
    model: Any = timm.create_model(TINY_MODEL, num_classes=7)
    weights, path, choice = (
        model.state_dict(),
        tmp_path / "w.pth",
        EncoderChoice(architecture=TINY_MODEL),
    )
    match kind:
        case "pth":
            torch.save(weights, path)
        case "nested pth":
            inner = {f"module.encoder.{name}": value for name, value in weights.items()}
            torch.save({"epoch": 3, "state_dict": inner}, path)
        case "safetensors":
            path = tmp_path / "w.safetensors"
            save_file(weights, path)
        case _:
            path, choice = tmp_path / "hub", EncoderChoice(size=64)
            path.mkdir()
            save_file(weights, path / "model.safetensors")
            cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 96, 96]}
            about = {"architecture": TINY_MODEL, "num_classes": 7, "pretrained_cfg": cfg}
            (path / "config.json").write_text(json.dumps(about))
    found = open_encoder(path, choice)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().forward_head(model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(found.encoder(x), expected)
    if kind == "hub folder":
        assert (found.images.size, found.images.mean) == (64, (0.1, 0.2, 0.3))
    else:
        assert found.images.mean == tuple(model.pretrained_cfg["mean"])


def test_a_folder_of_the_hub_cannot_name_a_pickle(tmp_path: Path) -> None:
    about = {"architecture": TINY_MODEL, "model_args": {"checkpoint_path": "evil.pth"}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="got checkpoint_path"):
        open_encoder(tmp_path, EncoderChoice())


def test_a_timm_encoder_without_weights_is_a_function_of_the_seed(tmp_path: Path) -> None:
    choice = EncoderChoice(pretrained=False, size=32)
    config = EvaluateConfig(protocols=("knn",), device="cpu")
    spec, data = f"timm:{TINY_MODEL}", DataConfig(spec="builtin:digits", limit=20)
    found = evaluate_encoder(spec, data, tmp_path / "out", config, choice=choice)
    assert {result.where for result in found.values()} == {"h", "pixels"}
    one, same, other = (
        next(open_encoder(spec, replace(choice, seed=seed)).encoder.parameters())
        for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
