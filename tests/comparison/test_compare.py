"""A comparison of heads whose runs were evaluated in another way since."""

import dataclasses
from pathlib import Path

import pytest

from headwise import EvaluateConfig, evaluate
from headwise.comparison import baselines, findings, measuring, summary
from headwise.comparison.compare import CompareConfig, compare, resume_comparison
from headwise.data import DataConfig
from headwise.model.config import PretrainConfig
from headwise.report import comparison_text
from headwise.report.reading.comparison import read_comparison
from headwise.runs.directory import Run


def test_numbers_of_other_images_and_seeds_stay_out_of_a_comparison(
    tiny: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (baselines, findings, summary):  # the linear probes take longest
        monkeypatch.setattr(module, "PROTOCOLS", ("knn",))
    monkeypatch.setattr(measuring, "write_report", lambda out: None)  # nor the page
    monkeypatch.setattr(summary, "_map", lambda *_: {})
    config = dataclasses.replace(tiny, epochs=1, knn_every=0)
    out = tmp_path / "heads"
    two = CompareConfig(pretrain=config, arms=("identity", "mlp"), seeds=1, scratch=False)
    before = compare(two, out, quiet=True)
    assert "On builtin:digits:" in comparison_text(out)
    read = read_comparison(out).runs
    run = Run(out / "mlp-seed0")
    # Fewer images, other taps, and another seed of the evaluation, of one head alone.
    knn = EvaluateConfig(protocols=("knn",), taps=("f1", "h", "z"), baselines=False)
    evaluate(run.path, DataConfig(spec="builtin:digits", limit=30), knn)
    evaluate(run.path, config=dataclasses.replace(knn, seed=3))
    assert len(run.sections) == 2
    assert run.sections[0].results["knn/h"].seeds == (3,)
    assert resume_comparison(out, quiet=True) == before
    assert [run.settings["knn/h"] for run in read_comparison(out).runs] == [
        run.settings["knn/h"] for run in read
    ]
    assert run.sections[0].results["knn/h"].chance == before["chance"]
