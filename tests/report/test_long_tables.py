"""Numbers taken away: from the tables alone, anybody can redo the statistics."""

import csv
import io
import json
import runpy
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from headwise import EvaluateConfig, compare, evaluate
from headwise.augment import AugmentConfig
from headwise.cli.main import main
from headwise.comparison.compare import CompareConfig
from headwise.data import DataConfig
from headwise.data.names import as_names
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.evaluation.statistics.over_seeds import differences
from headwise.files import write_json
from headwise.model.config import PretrainConfig
from headwise.report.reading.long import answers, numbers
from headwise.runs.directory import Run
from headwise.runs.results import mean_value, summarise
from headwise.runs.sections import DataIdentity

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads, two seeds."""
    path = tmp_path_factory.mktemp("comparison") / "heads"
    config = PretrainConfig(
        data=DataConfig(spec="builtin:digits", limit=150),
        augment=AugmentConfig(size=8),
        encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 8, 8)),
        epochs=1,
        batch_size=50,
        device="cpu",
        precision="float32",
        knn_every=0,
    )
    compare(CompareConfig(pretrain=config, arms=("linear", "mlp"), seeds=2), path, quiet=True)
    return path


def table(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, str]]:
    with pytest.raises(SystemExit) as stop:
        main(["results", *map(str, words)])
    found = capsys.readouterr()
    assert stop.value.code == 0, found.err
    return list(csv.DictReader(io.StringIO(found.out)))


def test_every_number_of_every_run_is_a_row(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, out)
    for name in ("linear-seed0", "linear-seed1", "mlp-seed0", "mlp-seed1"):
        run = Run(out / name)
        (section,) = run.sections
        own = [row for row in rows if row["run"] == str(run.path)]
        assert len(own) == len(section.results)
        for row, result in zip(own, section.results.values(), strict=True):
            assert row["setting"] == name.partition("-")[0]
            assert int(row["seed"]) == int(name[-1])
            assert float(row["value"]) == result.value  # to the last bit
            assert f"{row['measure']}/{row['tap']}" == result.key
    by_seed = json.loads((out / "summary.json").read_text())["by_seed"]
    kept = {(row["setting"], row["seed"], f"{row['measure']}/{row['tap']}"): row for row in rows}
    for seed in ("0", "1"):
        for head, scores in by_seed[seed]["heads"].items():
            assert scores["linear/h"] == float(kept[head, seed, "linear/h"]["value"])
        for base, scores in by_seed[seed]["baselines"].items():
            value = float(kept[base, seed, f"linear/{base}"]["value"])
            assert scores["linear/h"] == pytest.approx(value, abs=1e-12)


def test_every_answer_to_every_test_image_is_a_row(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table(capsys, out, "--each", "--keys", "linear/h", "knn/z", "linear/pixels")
    run = Run(out / "mlp-seed1")
    (section,) = run.sections
    own = [row for row in rows if row["run"] == str(run.path)]
    assert {(row["measure"], row["tap"]) for row in own} == {("linear", "h"), ("knn", "z")}
    for key in ("linear/h", "knn/z"):
        some = [row for row in own if f"{row['measure']}/{row['tap']}" == key]
        result = section.results[key]
        assert len(some) == result.n == len({row["id"] for row in some})
        right = [float(row["right"]) for row in some]
        assert np.mean(right) == pytest.approx(result.value)
        for row in some:
            assert (row["label"] == row["prediction"]) == (float(row["right"]) == 1)
            # A margin says right or wrong by its sign; a tie may be either.
            assert float(row["margin"]) * (2 * float(row["right"]) - 1) >= 0
    assert any(row["setting"] == "pixels" and row["prediction"] and row["id"] for row in rows)


def test_the_test_of_a_comparison_can_be_redone_from_the_table(tmp_path: Path) -> None:
    """Planted answers of three heads at five seeds to 80 images, by examples/redo_the_test.py."""
    draws, right = np.random.default_rng(0), {}
    image = draws.normal(size=80)
    data = DataIdentity(spec="planted", fingerprint="0" * 12, classes=("0", "1"))
    ids = as_names(map(str, range(80)))
    for setting, ability in (("a", 0.0), ("b", 0.3), ("c", 0.9)):
        rows = []
        for seed in range(5):
            answers_here = (image + ability + draws.normal() / 4 + draws.normal(size=80)) > 0
            rows.append(answers_here)
            run = Run(tmp_path / f"{setting}-seed{seed}")
            write_json(run.path / "config.json", {})
            value = mean_value("linear", "linear", "h", torch.from_numpy(answers_here))
            run.add_results(data, {value.key: summarise([value], [seed], version=1)})
            run.add_arrays(
                data,
                {
                    "each/linear/h": answers_here.astype(np.float32),
                    "predictions/linear/h": answers_here.astype(np.int32),
                    "truth/constant": np.ones(80, np.int64),
                    "names/constant": ids.text,
                    "lengths/constant": ids.ends - ids.starts,
                },
            )
        right[setting] = torch.from_numpy(np.stack(rows)).double()
    write_json(tmp_path / "config.json", {"pretrain": {}})
    script = runpy.run_path(str(ROOT / "examples" / "redo_the_test.py"))
    table = script["redone"](pd.DataFrame(map(vars, answers([tmp_path], ["linear/h"]))))
    ours = differences("linear/h", right, list(combinations("abc", 2)))
    assert len(table) == len(ours) == 3
    for one in ours:
        (row,) = table[(table["a"] == one.a) & (table["b"] == one.b)].to_dict("records")
        assert row["value"] == pytest.approx(one.value, abs=1e-12)
        assert row["adjusted"] == pytest.approx(one.p_value, rel=1e-9, abs=1e-12)
    assert 0 < table["adjusted"].min() < 0.05


def test_markdown_and_latex_have_the_same_rows(out: Path) -> None:
    def written(form: str) -> list[str]:
        path = out.parent / f"table.{form}"
        with pytest.raises(SystemExit) as stop:
            main(["results", str(out), "--to", form, "--keys", "linear/h", "--out", str(path)])
        assert stop.value.code == 0
        return path.read_text().splitlines()

    markdown, latex = written("markdown"), written("latex")
    assert len(markdown) == 2 + 4
    assert all(line.count("|") == markdown[0].count("|") for line in markdown)
    body = [line for line in latex if line.endswith(r"\\")]
    assert len(body) == 1 + 4
    assert all(line.count(" & ") == body[0].count(" & ") for line in body)


def test_a_run_alone_and_what_it_has_not(out: Path, tmp_path: Path) -> None:
    alone = list(numbers([out / "mlp-seed0"], ["linear/h"]))
    assert [(row.setting, row.seed) for row in alone] == [("mlp", 0)]
    assert list(answers([out / "mlp-seed0"], ["rank/h"])) == []
    with pytest.raises(UserError, match=r"has no config.json"):
        list(numbers([tmp_path]))


def test_answers_of_trained_protocols_and_clusters_are_kept(out: Path) -> None:
    run = out / "linear-seed0"
    asked = EvaluateConfig(protocols=("cluster", "robustness"), taps=("h",), baselines=False)
    results = evaluate(run, config=asked)
    for key in ("cluster/h", "robustness_clean/h"):
        rows = list(answers([run], [key]))
        assert np.mean([row.right for row in rows]) == pytest.approx(results[key].value)
        assert all((row.prediction == row.label) == (row.right == 1) for row in rows)
