"""`headwise theory`: its words, its figures, and what it asks trained heads."""

import csv
import dataclasses
import io
import shutil

import numpy as np
import pytest

from headwise.cli import theory
from headwise.cli.words import read_words
from headwise.data import DataConfig
from headwise.errors import UserError
from headwise.files import read_json, write_json
from headwise.heads import HeadConfig
from headwise.pretraining.loop import pretrain
from headwise.report.plots.drawing import Drawing, style
from headwise.theory.checks import LayerPath, PhasePoint, Phases, map_point
from headwise.theory.figures import map_figure, path_figure, phase_figure
from headwise.theory.limits import LimitCheck
from headwise.theory.map import BatchShape, Cosines, Layer
from headwise.theory.studies import batch_size_study, blocks_of, set_up, strength_study
from headwise.theory.trained import mean_block
from headwise.theory.trained_figures import (
    minimum_figure,
    share_figure,
    study_figure,
    trained_figure,
)

LAYER, BATCH = Layer(beta=4.0), BatchShape(classes=2, per_class=8, width=16)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--out"),
        (["--out", "{tmp}/full"], "--out must be a new or empty directory"),
        (["--out", "{tmp}/new", "--runs", "{tmp}/nowhere"], "config.json"),
        (["--out", "{tmp}/new", "--layers", "3"], "no flag --layers"),
        (["--out", "{tmp}/new", "--studies"], "--studies needs --runs"),
    ],
)
def test_bad_words_are_one_line_and_write_nothing(tmp_path, words, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match=said) as caught:
        theory.run(read_words(theory.LINE, [word.format(tmp=tmp_path) for word in words]))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def rows(drawing: Drawing) -> list[dict[str, str]]:
    assert drawing.png.startswith(b"\x89PNG")
    assert "<svg" in drawing.svg
    assert "\\mathdefault" not in drawing.svg
    return list(csv.DictReader(io.StringIO(drawing.table)))


def test_figures_have_their_numbers():
    point = map_point(Cosines(0.5, 0.1), LAYER, BATCH, 0)
    with style():
        table = rows(map_figure([point], [("far", point)]))
        assert [row["range"] for row in table] == ["stated range", "far"]
        assert float(table[0]["a_simulated"]) == pytest.approx(point.simulated.within, rel=1e-5)
        assert float(table[0]["error"]) == pytest.approx(point.error, rel=1e-5)
        spot = PhasePoint(1.0, 0.5, "fusion", "no fusion")
        diagram = Phases(
            BATCH, (1.0, 2.0), (0.1, 0.5, 0.9), np.array([[0, 1], [1, 2], [0, 0]]), (spot,)
        )
        table = rows(phase_figure([diagram] * 2, 4))
        assert len(table) == 2 * 7
        assert table[3] | {"predicted": "over-fusion", "beta": "2", "noise": "0.5"} == table[3]
        assert table[6]["simulated"] == "no fusion"
        path = LayerPath("one", LAYER, BATCH, (Cosines(0.5, 0.1),) * 3, (Cosines(0.4, 0.2),) * 3)
        table = rows(path_figure([path] * 4))
        assert [row["layer"] for row in table[:3]] == ["0", "1", "2"]
        assert table[0]["b_simulated"] == "0.2"
        check = LimitCheck(Cosines(0.5, 0.1), LAYER, BATCH, 12.5, 13.0)
        for figure in (minimum_figure, share_figure):
            assert rows(figure([check]))[0]["predicted"] == "12.5"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from headwise.augment import AugmentConfig
    from headwise.encoders.build import EncoderConfig
    from headwise.model.config import PretrainConfig

    path = tmp_path_factory.mktemp("runs") / "small"
    config = PretrainConfig(
        data=DataConfig(spec="builtin:digits", limit=200, test_fraction=0.5),
        augment=AugmentConfig(size=8),
        encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 16, 16)),
        head=HeadConfig(name="transformer", depth=2, width=16, num_heads=2, output_size=8),
        epochs=1,
        batch_size=40,
        device="cpu",
        precision="float32",
    )
    pretrain(config, path, quiet=True)
    return path


def test_studies_of_a_trained_head(run):
    setup = set_up(run, batches=2)
    blocks = [mean_block(column) for column in zip(*blocks_of(setup), strict=True)]
    assert [block.tap for block in blocks] == ["g2", "g3"]
    points = batch_size_study(setup, [10, 20])
    assert [(point.setting, point.tap) for point in points] == [
        (size, tap) for size in (10, 20, 40) for tap in ("g2", "g3")
    ]
    reference = points[-2:]
    assert all(point.reference for point in reference)
    for point, block in zip(reference, blocks, strict=True):
        assert point.measured_gain == pytest.approx(block.measured_gain)
        assert point.measured_mass == pytest.approx(block.measured_mass)
        assert point.within == pytest.approx(block.before.within)
        # Attention by the mean batch, for the mean over batches of attention.
        assert point.predicted_mass == pytest.approx(block.predicted_mass, rel=0.05)
    # Fewer classmates: less attention to them, in both.
    for tap in ("g2", "g3"):
        mine = [point for point in points if point.tap == tap]
        assert mine[0].measured_mass < mine[-1].measured_mass
        assert mine[0].predicted_mass < mine[-1].predicted_mass
    with pytest.raises(UserError, match="batch sizes"):
        batch_size_study(setup, [2])
    with pytest.raises(UserError, match="batch sizes"):
        batch_size_study(setup, [])
    strengths = strength_study(setup, [0.0])
    assert [point.setting for point in strengths] == [0.0, 0.0, 0.5, 0.5]
    assert strengths[0].within != strengths[2].within
    assert strengths[2].measured_gain == pytest.approx(blocks[0].measured_gain)
    with style():
        table = rows(study_figure("small", "batch size", points))
        assert float(table[0]["measured_gain"]) == pytest.approx(points[0].measured_gain, rel=1e-5)
        table = rows(trained_figure([("small", block) for block in blocks]))
        assert float(table[0]["beta"]) == pytest.approx(blocks[0].layer.beta, rel=1e-5)


def test_a_run_of_a_gpu_opens_without_one(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    config = read_json(copy / "config.json") | {"device": "cuda", "precision": "bfloat16"}
    write_json(copy / "config.json", config | {"compiled": True})
    setup = set_up(copy, batches=2, device="cpu")
    assert setup.extraction.device == "cpu"
    assert len(blocks_of(setup)) == 2


def test_a_plan_with_another_batch_size_measures_other_batches(run):
    setup = set_up(run, batches=2)
    plan = setup.plan._replace(batch_size=20)
    small = blocks_of(setup._replace(plan=plan))[0][0]
    assert small.batch.per_class < blocks_of(setup)[0][0].batch.per_class
    assert dataclasses.asdict(small.layer)["residual"] > 0
