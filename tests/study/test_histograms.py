"""Crops of one image are matched by their histograms, until colours are distorted."""

import json
from pathlib import Path

import pytest
import torch

from headwise.cli.main import main
from headwise.config import from_dict, to_dict
from headwise.data.images import resident_images
from headwise.report.reading.study import StudyFindings, read_findings
from headwise.study.presets import preset
from headwise.study.presets.histograms import BINS, Histograms, measured_histograms, nearer, shares


def test_shares_count_every_pixel_once() -> None:
    pixels = torch.tensor([0.0, 0.999 / BINS, 1.0 / BINS, 1.0]).expand(2, 3, 4, 4)
    found = shares(pixels)
    assert found.shape == (2, 3, BINS)
    assert found[..., [0, 1, -1]].unique(dim=0).tolist() == [[[0.5, 0.25, 0.25]] * 3]


def test_nearer_is_a_half_by_chance_and_one_where_twins_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(200, 3, BINS, generator=generator) for _ in range(2)]
    assert abs(nearer(Histograms(*views)).mean().item() - 0.5) < 0.03
    assert nearer(Histograms(views[0], views[0])).tolist() == [1.0] * 200
    same = torch.ones(9, 3, BINS)
    assert nearer(Histograms(same, same)).tolist() == [0.5] * 9


def test_colours_of_their_own_are_matched_until_they_are_distorted() -> None:
    """Every image is one colour with a little noise, so its crops have its histogram."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(60, 3, 1, 1, generator=generator)
    noise = 0.05 * torch.randn(60, 3, 24, 24, generator=generator)
    pixels = ((colours + noise).clamp(0, 1) * 255).byte()
    images = resident_images(
        pixels, torch.zeros(60, dtype=torch.long), ("one",), [f"{i}" for i in range(60)]
    )
    findings, drawing = measured_histograms(preset("pixel-histograms", "trial"), images)
    assert from_dict(StudyFindings, json.loads(json.dumps(to_dict(findings)))) == findings
    (claim,) = findings.claims
    matched, lost = (one.value + 0.5 * (one.name == "crops − chance") for one in claim.tested)
    assert claim.answer == "supported"
    assert matched > 0.97
    assert lost > 0.1
    assert "50 %" in claim.words
    assert drawing.table.count("\n") == 2 * 2 * 4 * BINS + 1


def test_the_command_writes_findings_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    words = ["study", "run", "pixel-histograms", "--data", "builtin:digits", "--out", str(out)]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    assert read_findings(out).claims[0].name == "crops-share-a-histogram"
    assert "nearer histogram" in (out / "report.html").read_text()
    assert (out / "figures" / "pixel-histograms.csv").is_file()
    with pytest.raises(SystemExit):
        main([*words, "--workers", "2"])
    assert "trains nothing, so --workers has no effect" in capsys.readouterr().err
