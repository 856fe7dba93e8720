"""The fusion part of a run's report, against made-up arrays whose every number is known."""

import base64
import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_evaluation_report as evaluated
from PIL import Image
from planted_fusion_arrays import (
    BATCH_SIZE,
    CLASSES,
    EPOCHS,
    HALF_WIDTH,
    planted_arrays,
    write_arrays,
)
from test_report import Page, missing, page_of

from headwise.files import write_json
from headwise.fusion.lab import main_results
from headwise.report import write_run_report
from headwise.report.plots.attention import MASKED, head_grid
from headwise.report.plots.drawing import csv_text, style
from headwise.report.reading.fusion import FusionArrays, batch_interval, read_fusion
from headwise.runs.directory import Run
from headwise.runs.sections import DataIdentity

DATA = DataIdentity(spec="cifar10", fingerprint="abc123")
MAPS = [f"fusion-{what}-{how}" for what in ("heads", "blocks") for how in ("masked", "unmasked")]
FIGURES = ["gain", "twin-mass", "training", "path", "geometry"]
FIGURES = [*(f"fusion-{name}" for name in FIGURES), *MAPS]

Rows = list[dict[str, str]]


def make_run(path: Path, arrays: dict[str, np.ndarray], head: str = "transformer") -> Path:
    """A finished run as `headwise fusion` leaves it."""
    write_json(path / "config.json", {"data": {"spec": "cifar10"}, "head": {"name": head}})
    run = Run(path)
    run.finish()
    write_arrays(path, arrays)
    run.add_results(DATA, main_results(arrays, seed=0, settings={}))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("fusion") / "run", planted_arrays(images=20))
    assert write_run_report(path) == path / "report.html"
    return path


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return page_of(run)


def table(run: Path, figure: str, **wanted: str) -> Rows:
    """The rows of a figure's table that have these values."""
    text = (run / "figures" / f"fusion-{figure}.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def column(rows: Rows, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def test_every_figure_is_on_the_page_and_in_files(run: Path, page: Page) -> None:
    for name in FIGURES:
        assert (run / "figures" / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
        assert (run / "figures" / f"{name}.csv").read_text(encoding="utf-8").count("\n") > 4
        with Image.open(run / "figures" / f"{name}.png") as image:
            assert image.width >= 800
        assert f"{name}-figure_1" in page.ids
    for kind in ("svg", "csv", "png"):
        assert len(list((run / "figures").glob(f"*.{kind}"))) == len(FIGURES)


def test_page_needs_nothing_else(page: Page) -> None:
    assert all(address.startswith(("data:", "#")) for address in page.loaded)
    assert "script" not in page.tags
    outside = [link for link in page.links if not link.startswith("#")]
    assert all(link.startswith("https://arxiv.org/abs/") for link in outside)
    within = [link[1:] for link in page.links if link.startswith("#")]
    assert set(within) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_conclusion_and_numbers_of_every_block_come_first(run: Path, page: Page) -> None:
    anchors = ["fusion", "fusion-curves", "fusion-maps", "fusion-geometry"]
    assert [name for name in page.ids if name in anchors] == anchors
    html = (run / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<ul class="found">.*?</ul>', html, re.DOTALL)[0].count("<li>") == 5
    cells = evaluated.Tables(html).cells
    spread = f"± {HALF_WIDTH:.3f}"
    for block, gain in enumerate(("1.500", "2.000", "2.500", "3.000")):
        tap = f"g{2 + block}"
        assert cells["fusion", "fusion gain", tap] == f"{gain} {spread}"
        assert cells["fusion", "attention to the twin", tap].startswith(f"{32 + block}.0 ")
        assert cells["fusion", "p, permuted labels", tap] == "0.004"
    assert cells["fusion", "exceeds every control", "g2"] == "no"  # 0.1 ± 0.19 above the h control
    assert cells["fusion", "exceeds every control", "g5"] == "yes"


def test_gain_is_drawn_with_its_controls(run: Path) -> None:
    taps = ["g2", "g3", "g4", "g5"]
    found = table(run, "gain", head="all", series="trained")
    assert [row["tap"] for row in found] == taps
    np.testing.assert_allclose(column(found, "mean"), [1.5, 2, 2.5, 3], rtol=1e-5)
    np.testing.assert_allclose(column(found, "high") - column(found, "mean"), HALF_WIDTH, 1e-4)
    np.testing.assert_allclose(column(found, "mean") - column(found, "low"), HALF_WIDTH, 1e-4)
    for series, mean in (
        ("untrained", 1.1),
        ("h at equal entropy", 1.4),
        ("input rows at equal entropy", 1.3),
    ):
        rows = table(run, "gain", series=series)
        np.testing.assert_allclose(column(rows, "mean"), mean, rtol=1e-5)
    permuted = planted_arrays()["layer_gain_permuted"]
    rows = table(run, "gain", series="permuted labels, 95 %")
    for name, level in (("low", 0.025), ("high", 0.975)):
        expected = np.quantile(permuted, level, axis=1)
        np.testing.assert_allclose(column(rows, name), expected, rtol=1e-5)
    fourth = table(run, "gain", head="4")
    np.testing.assert_allclose(column(fourth, "mean"), [1.65, 2.15, 2.65, 3.15], rtol=1e-5)


def test_the_gain_line_goes_through_its_values(run: Path) -> None:
    blue = evaluated.marks(run, "fusion-gain", "#0072b2")[:, 1]
    axis = evaluated.marks(run, "fusion-gain", evaluated.TICKS)[4:, 1]  # first the blocks
    unit = (axis[0] - axis[-1]) / (0.5 * (len(axis) - 1))  # a tick every half
    heights = (axis[0] - blue[blue < axis[0]]) / unit  # the legend is below the axes
    np.testing.assert_allclose(1 + heights, [1.5, 2, 2.5, 3], atol=0.01)


def test_other_tables_hold_the_planted_numbers(run: Path) -> None:
    twin = table(run, "twin-mass", mass="to the twin", head="all", series="trained")
    np.testing.assert_allclose(column(twin, "mean"), [0.32, 0.33, 0.34, 0.35], rtol=1e-5)
    itself = table(run, "twin-mass", mass="to itself", head="all", series="untrained")
    np.testing.assert_allclose(column(itself, "mean"), [0.32, 0.33, 0.34, 0.35], rtol=1e-5)
    rank = table(run, "geometry", measure="rank", series="uniform attention")
    assert [row["tap"] for row in rank] == ["h", "g1", "g2", "g3", "g4", "g5", "z"]
    expected = 0.46 + 0.15 * np.linspace(0, 1, 7)
    np.testing.assert_allclose(column(rank, "mean"), expected, rtol=1e-5)
    over = table(run, "training", series="fusion gain", tap="g5")
    np.testing.assert_allclose(column(over, "epoch"), EPOCHS)
    np.testing.assert_allclose(column(over, "mean"), 1 + 2 * np.array(EPOCHS) / 80, rtol=1e-5)
    nn1 = table(run, "training", series="1-NN", tap="h")
    np.testing.assert_allclose(column(nn1, "mean"), 0.2 + np.array(EPOCHS) / 160, rtol=1e-5)
    path = table(run, "path", tap="g3", view="1")
    np.testing.assert_allclose(
        column(path, "x"), planted_arrays(images=20)["path"][2, 20:, 0], 1e-4
    )
    assert [row["class"] for row in path] == [name for name in CLASSES for _ in range(2)]


def test_maps_are_sums_over_views_and_leave_self_and_twin_out(run: Path) -> None:
    maps = planted_arrays(images=20)["maps"].astype(float)
    first, second = maps[2, 1, :20], maps[2, 1, 20:]
    expected = (first[:, :20] + first[:, 20:] + second[:, :20] + second[:, 20:]) / 2
    for how in ("masked", "unmasked"):
        rows = table(run, f"heads-{how}", tap="g4", head="2")
        assert [row["class"] for row in rows] == [name for name in CLASSES for _ in range(2)]
        found = np.array([[float(row[str(j)] or "nan") for j in range(20)] for row in rows])
        own = np.eye(20, dtype=bool)
        assert np.isnan(found[own]).all() == (how == "masked")
        np.testing.assert_allclose(found[~own], expected[~own], rtol=0.01)
    views = table(run, "blocks-masked", tap="g4")
    found = np.array([[float(row[str(j)] or "nan") for j in range(40)] for row in views])
    hidden = np.tile(np.eye(20, dtype=bool), (2, 2))
    np.testing.assert_array_equal(np.isnan(found), hidden)
    np.testing.assert_allclose(found[~hidden], maps[2].mean(0)[~hidden], rtol=0.01)


def pixels(svg: str) -> np.ndarray:
    """The picture within a figure: the largest of its images."""
    found = re.findall(r'xlink:href="data:image/png;base64,\s*([^"]+)"', svg)
    images = [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA") for data in found]
    return np.array(max(images, key=lambda image: image.width * image.height))


def test_one_colour_scale_for_all_panels() -> None:
    """Twice the attention is the same step in colour wherever it is; black only where masked."""
    arrays = planted_arrays(blocks=2, heads=3, images=20)
    arrays["maps"] = np.full((2, 3, 40, 40), 1 / (2 * BATCH_SIZE), dtype=np.float16)
    arrays["maps"][0, 0, :20] *= 4
    arrays["maps"][1, 2, :20] *= 4
    with style():
        drawing = head_grid(FusionArrays(arrays=arrays), masked=True)
    assert drawing is not None
    picture = pixels(drawing.svg)
    step = 22  # 20 images and a gap
    corners = [[picture[step * row, step * head + 1] for head in range(3)] for row in range(2)]
    assert np.array_equal(corners[0][0], corners[1][2])
    assert np.array_equal(corners[0][1], corners[1][0])
    assert not np.array_equal(corners[0][0], corners[0][1])
    black = [int(MASKED[i : i + 2], 16) for i in (1, 3, 5)]
    assert (picture[range(20), range(20), :3] == black).all()
    assert not (picture[0, 1:20, :3] == black).all(axis=-1).any()


@pytest.mark.parametrize(("heads", "wide"), [(4, False), (9, True)])
def test_many_heads_take_the_width_of_the_page(tmp_path: Path, heads: int, wide: bool) -> None:
    arrays = planted_arrays(blocks=1, heads=heads, images=20, training=False)
    path = make_run(tmp_path / "run", arrays)
    html = write_run_report(path).read_text(encoding="utf-8")
    assert ('<figure class="wide"' in html) == wide
    with Image.open(path / "figures" / "fusion-heads-masked.png") as image:
        assert (image.width > 1600) == wide


def test_without_checkpoints_nothing_is_said_of_training(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", planted_arrays(blocks=1, heads=1, images=20, training=False))
    write_run_report(path)
    assert not (path / "figures" / "fusion-training.csv").exists()
    assert "fusion-gain-figure_1" in page_of(path).ids
    assert not table(path, "gain", series="one attention head")


def test_a_head_without_attention_has_its_geometry(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", planted_arrays(blocks=0), head="mlp")
    write_run_report(path)
    page = page_of(path)
    assert {"fusion", "fusion-geometry"} <= set(page.ids)
    assert not {"fusion-curves", "fusion-maps"} & set(page.ids)
    assert page.tags.count("svg") == 1
    assert not missing(["no attention over the batch to measure"], page.text)
    (path / "results.json").unlink()
    write_run_report(path)
    assert "fusion-geometry" in page_of(path).ids


def test_whichever_came_last_both_are_on_the_page(tmp_path: Path) -> None:
    results, arrays = evaluated.measured("linear", {"linear/h": 0.8, "linear/z": 0.7}, chance=0.1)
    path = evaluated.make_run(tmp_path / "run", results, arrays)
    alone = write_run_report(path).read_text(encoding="utf-8")
    assert "usion" not in alone
    make_run(path, planted_arrays(blocks=1, heads=1, images=20, training=False))
    write_run_report(path)
    page = page_of(path)
    assert {"taps", "fusion", "fusion-maps"} <= set(page.ids)
    assert "others" not in page.ids
    assert "reaches 80.0 % accuracy" in page.text.replace("\xa0", " ")


def test_words_from_outside_are_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>, & $x$'
    arrays = planted_arrays(blocks=1, heads=1, images=20, training=False)
    arrays["classes"] = np.array([evil, *CLASSES[1:]])
    path = make_run(tmp_path / "run", arrays)
    write_run_report(path)
    page = page_of(path)
    assert "script" not in page.tags
    assert evil in page.text
    assert {row["class"] for row in table(path, "path", image="0")} == {evil}


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """NaN: a whole control, one batch, one block, one checkpoint."""
    arrays = planted_arrays(blocks=3, heads=2, images=20)
    for name in ("layer_gain_h", "nn1_uniform", "silhouette", "layer_auroc"):
        arrays[name][:] = np.nan
    arrays["twin_mass"][0] = np.nan
    arrays["layer_gain_untrained"][:, 1] = np.nan
    arrays["training_gain_h"][0] = np.nan
    path = make_run(tmp_path / "run", arrays)
    write_run_report(path)
    for file in (path / "figures").glob("fusion-*.[sc]*"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text), re.IGNORECASE)
    assert not table(path, "gain", series="h at equal entropy")
    assert [row["mean"] for row in table(path, "gain", series="untrained")][1] == ""
    assert not table(path, "geometry", measure="silhouette", series="trained")


def test_intervals_are_of_t_over_batches() -> None:
    values = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 4.0]])
    found = batch_interval(values)
    np.testing.assert_allclose(found.mean, [3, 3])
    # t of 2 and of 1 degrees of freedom; standard errors 2/√3 and √2/√2.
    np.testing.assert_allclose(found.high - found.mean, [4.302653 * 2 / 3**0.5, 12.7062], 1e-5)
    single = batch_interval(values[:1])
    np.testing.assert_array_equal(single.mean, [1, 2])
    assert np.isnan([single.low, single.high]).all()


def test_tables_are_plain() -> None:
    rows: list[list[Any]] = [["a, b", 1.0, np.float32("nan")], ['"c"', np.float64(1 / 3), 7]]
    text = csv_text(["name", "x", "y"], rows)
    assert text == 'name,x,y\n"a, b",1,\n"""c""",0.333333,7\n'
    assert list(csv.reader(io.StringIO(text)))[2] == ['"c"', "0.333333", "7"]


def test_no_fusion_no_arrays(tmp_path: Path) -> None:
    assert read_fusion(tmp_path) is None
