"""The example of a study of one's own, from Python."""

import importlib.util
from pathlib import Path

import pytest

from headwise.model.config import PretrainConfig
from headwise.report.reading.study import read_findings

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_study.py"


def test_a_study_of_ones_own_fits_a_screen_and_runs(
    tiny: PretrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = importlib.util.spec_from_file_location("own_study", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "recipe", lambda name: tiny)
    out = tmp_path / "study"
    words = ["own_study.py", "--out", str(out), "--epochs", "1", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", words)
    module.main()
    findings = read_findings(out)
    assert len(findings.arms) == 8
    assert not findings.failed
    assert findings.claims[0].tested[0].verdict == "1 of 5 seeds: no verdict"
    assert "A wider head helps more" in capsys.readouterr().out
    assert len(EXAMPLE.read_text().splitlines()) <= 80
