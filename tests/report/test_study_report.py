"""A study's page, figures and tables, against made-up findings whose every number is known."""

import csv
import io
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image
from test_report import Page, contents, missing, page_of

from headwise.config import to_dict
from headwise.errors import UserError
from headwise.files import write_json
from headwise.report import rebuild, study_text, write_study_report
from headwise.report.plots.drawing import style
from headwise.report.plots.study import caption, picture
from headwise.report.prose.study import opening
from headwise.report.reading.study import (
    FINDINGS_FILE,
    Answer,
    ArmFound,
    ClaimFound,
    Figure,
    Picture,
    StudyFindings,
)
from headwise.report.reading.study import (
    Tested as Contrasted,
)
from headwise.report.reading.study_points import shown

HEADS, SIZES, OPERATORS = ("linear", "mlp"), ("32", "128", "512"), ("crop", "colour", "blur")
DATA = ("cifar10", "cifar100")
EVIL = "<script>alert(1)</script> & more"
SHAPE = {"linear/h": 0.0, "linear/z": -0.1}
"""What z is below h by."""


def accuracy(*levels: str) -> float:
    """A planted mean of linear/h."""
    places = (HEADS, SIZES, OPERATORS, DATA)
    found = [row.index(level) for level in levels for row in places if level in row]
    return 0.4 + sum(0.03 * (i + 1) * place for i, place in enumerate(found))


def make_arm(levels: dict[str, str], seeds: int = 5, units: str = "share") -> ArmFound:
    mean, known = accuracy(*levels.values()), range(seeds)
    values = {
        key: [mean + shift + 0.01 * (seed - (seeds - 1) / 2) for seed in known]
        for key, shift in SHAPE.items()
    }
    values |= {"rank/h": [20.0 + seed for seed in known]}
    return ArmFound(
        levels=levels,
        name=", ".join(f"{axis} {level}" for axis, level in levels.items()),
        seeds=tuple(known),
        values=values if seeds else {},
        plus_minus=dict.fromkeys(values, 0.015) if seeds >= 5 else {},
        units={"linear/h": units, "linear/z": units, "rank/h": "rank"} if seeds else {},
        runs=tuple(f"../cells/{'-'.join(levels.values())}-seed{seed}" for seed in known),
    )


def make_tested(answer: Answer, seeds: int = 5) -> Contrasted:
    judged = seeds >= 5
    return Contrasted(
        name=f"mlp − linear, {answer}",
        measure="linear/h",
        expects="above",
        unit="points",
        value=0.0312,
        interval=(0.011, 0.0514),
        p_value=0.004 if judged else None,
        answer=answer,
        verdict="shown over 5 seeds" if judged else f"{seeds} of 5 seeds: no verdict",
        seeds=seeds,
        seeds_needed=7,
    )


def make_claim(answer: Answer, seeds: int = 5) -> ClaimFound:
    return ClaimFound(
        name=f"claim-{answer}-{seeds}".replace(" ", "-"),
        says=f"A head does what is {answer} over {seeds} seeds.",
        source="SimCLR (arXiv 2002.05709), Figure 8",
        paper="mlp 66.6 %, linear 64.0 %",
        answer=answer,
        words=f"mlp − linear +3.1 points, +1.1 to +5.1: {answer}.",
        tested=(make_tested(answer, seeds),),
    )


PAPER = {"linear": {"32": 60.1, "512": 62.2}, "mlp": {"32": 65.4, "2048": 66.6}}
SOURCE = "SimCLR, Figure 8, ImageNet"
LINES = Figure(
    name="sizes",
    title="Output size",
    kind="lines",
    measures=("linear/h", "linear/z"),
    along="output size",
    by="head",
    paper=PAPER,
    paper_source=SOURCE,
)
GRID = Figure(
    name="pairs",
    title="Pairs of operators",
    kind="heatmap",
    along="second",
    by="first",
    paper={"crop": {"crop": 33.1, "colour": 56.3}},
    paper_source="SimCLR, Figure 5, ImageNet",
)
BARS = Figure(
    name="data",
    title="By data set",
    kind="bars",
    along="data",
    by="head",
    paper={"mlp": {"cifar10": 90.5}},
    paper_source="Deep Fusion, Table 1, CIFAR-10",
)
AXES = {
    "head": ["none", *HEADS],
    "output size": [*SIZES],
    "first": [*OPERATORS],
    "second": [*OPERATORS],
    "data": [*DATA],
}


def make_findings() -> StudyFindings:
    arms = [make_arm({"head": "none"})]
    arms += [make_arm({"head": h, "output size": s}) for h, s in product(HEADS, SIZES)]
    arms += [
        make_arm({"first": a, "second": b}, seeds=0 if (a, b) == ("blur", "crop") else 3)
        for a, b in product(OPERATORS, OPERATORS)
    ]
    arms += [make_arm({"head": h, "data": d}) for h, d in product(HEADS, DATA)]
    answers: list[Answer] = ["supported", "contradicted", "equivalent", "cannot tell"]
    return StudyFindings(
        name="planted",
        asks="Does a projection head help, and how large must it be?",
        scale="5,000 images of ./cifar10, resnet-small, 13 epochs",
        axes=AXES,
        seeds=5,
        arms=tuple(arms),
        claims=(*map(make_claim, answers), make_claim("cannot tell", 3)),
        figures=(LINES, GRID, BARS),
        failed={"mlp-0123456789ab-seed4": f"head.width must be positive; got {EVIL}"},
        missing=22,
        commit="0123abc",
        machine="two cores",
        hours=7.26,
        command="headwise study run heads --budget small --seeds 5 --out studies/heads",
    )


def write_study(folder: Path, findings: StudyFindings) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FINDINGS_FILE, to_dict(findings))
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("study") / "out", make_findings())
    assert write_study_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return page_of(out)


def rows_of(path: Path, **wanted: str) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_the_claims_come_first_each_with_its_answer(out: Path, page: Page) -> None:
    order = ["result", "claims", "figures", "arms", "failed", "run", "definitions"]
    assert [name for name in page.ids if name in order] == order
    html = (out / "report.html").read_text(encoding="utf-8")
    answers = re.findall(r'class="answer">([^<]+)</a> ([^<]+)</p>', html)
    assert answers == [(c.answer, c.words) for c in make_findings().claims]
    assert not missing(["+3.1 points", "+1.1 to +5.1", "0.004", "shown over 5 seeds"], page.text)
    assert "3 of 5 seeds: no verdict" in page.text
    assert "mlp 66.6 %, linear 64.0 %" in page.text.replace("\xa0", " ")


def test_the_page_says_what_is_done_and_what_is_not(page: Page) -> None:
    assert "79 of 102 runs are done (20 arms, 5 seeds each); 1 failed and 22 have" in page.text
    assert "9 arms have fewer than 5 seeds: no verdict yet" in page.text
    words = ["headwise study run heads --budget small", "0123abc", "two cores", "7.3 h"]
    assert not missing(["5,000 images of ./cifar10", *words], page.text)


def test_markup_in_a_message_is_text(out: Path, page: Page) -> None:
    assert EVIL in page.text
    assert "script" not in page.tags
    assert EVIL in study_text(out)


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert all(address.startswith(("data:", "#")) for address in page.loaded)
    outside = [link for link in page.links if not link.startswith("#")]
    assert all(link.startswith("https://arxiv.org/abs/") for link in outside)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_every_figure_is_on_the_page_and_in_files(out: Path, page: Page) -> None:
    for name in ("sizes", "pairs", "data"):
        assert (out / "figures" / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
        with Image.open(out / "figures" / f"{name}.png") as image:
            assert image.width >= 800
        assert f"{name}-figure_1" in page.ids


def test_figures_carry_their_numbers(out: Path) -> None:
    for row in rows_of(out / "figures" / "sizes.csv", measure="linear/h"):
        head, size = row["head"], row["output size"]
        if size in SIZES or head == "none":  # a level line
            size = "" if head == "none" else size
            assert float(row["mean"]) == pytest.approx(accuracy(head, size))
            assert float(row["plus minus"]) == 0.015
            assert float(row["seed 4"]) == pytest.approx(accuracy(head, size) + 0.02)
        assert row["paper"] == str(PAPER.get(head, {}).get(row["output size"], ""))
    pairs = rows_of(out / "figures" / "pairs.csv")
    assert [(r["first"], r["second"]) for r in pairs] == list(product(OPERATORS, OPERATORS))
    blank = [(r["first"], r["second"]) for r in pairs if not r["mean"]]
    assert blank == [("blur", "crop")]


def test_tables_have_the_planted_numbers(out: Path) -> None:
    (row,) = rows_of(out / "tables" / "arms.csv", head="mlp", data="cifar100", measure="linear/z")
    assert float(row["mean"]) == pytest.approx(accuracy("mlp", "cifar100") - 0.1)
    assert row["plus minus"] == "0.015"
    (rank,) = rows_of(out / "tables" / "arms.csv", head="none", measure="rank/h")
    assert [rank[f"seed {seed}"] for seed in range(5)] == ["20.0", "21.0", "22.0", "23.0", "24.0"]
    markdown = (out / "tables" / "arms.md").read_text()
    assert "| head | output size | linear/h | linear/z | seeds |" in markdown
    assert "| mlp | 512 | 55.0 ± 1.5 | 45.0 ± 1.5 | 5 of 5 |" in markdown
    assert "| blur | crop | – | – | 0 of 5 |" in markdown
    latex = (out / "tables" / "arms.tex").read_text()
    assert "mlp & 512 & 55.0 $\\pm$ 1.5 & 45.0 $\\pm$ 1.5 & 5 of 5 \\\\" in latex
    (claim,) = rows_of(out / "tables" / "claims.csv", claim="claim-equivalent-5")
    assert (claim["value"], claim["low"], claim["p"]) == ("0.0312", "0.011", "0.004")
    assert "| claim-cannot-tell-3 | mlp − linear" in (out / "tables" / "claims.md").read_text()


def test_the_page_is_rebuilt_byte_for_byte(out: Path) -> None:
    first = contents(out)
    assert rebuild(out) == out / "report.html"
    assert contents(out) == first


def test_a_study_may_draw_a_picture_itself(tmp_path: Path) -> None:
    picture = Picture(name="views", title="Views", description="Two images")
    findings = replace(make_findings(), pictures=(picture,), figures=(), arms=(), claims=())
    write_study(tmp_path, findings)
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "figures" / "views.png")
    write_study_report(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(r'<img src="data:image/png;base64,[^"]+" alt="Two images">', html)
    with pytest.raises(UserError, match="the stem of a file"):
        replace(picture, name="../views")


def test_a_study_without_findings_says_how_to_get_them(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {})
    with pytest.raises(UserError, match=r"no findings\.json; run it, or collect them"):
        rebuild(tmp_path)


def drawn(figure: Figure, findings: StudyFindings | None = None) -> list[Axes]:
    """The axes of a figure, before it is rendered."""
    with style():
        return picture(shown(findings or make_findings(), figure)).axes


def hollow(axes: Axes) -> list[tuple[float, float]]:
    """Where hollow marks are."""
    marks = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    places = [np.asarray(line.get_xydata())[0] for line in marks]
    return [(float(x), float(y)) for x, y in places]


def test_the_paper_has_an_axis_of_its_own_where_the_data_differ() -> None:
    ours, paper = drawn(LINES)
    assert not hollow(ours)
    assert hollow(paper) == [(32, 60.1), (512, 62.2), (32, 65.4), (2048, 66.6)]
    assert "hollow: SimCLR, Figure 8, ImageNet, right axis" in words(LINES)
    (axes,) = drawn(BARS)  # CIFAR-10 is the study's ./cifar10
    assert [x for x, _ in hollow(axes)] == [90.5]
    assert "hollow: Deep Fusion, Table 1, CIFAR-10." in words(BARS)
    ours, paper = drawn(replace(BARS, paper_source=SOURCE))
    assert [x for x, _ in hollow(paper)] == [90.5]


def words(figure: Figure) -> str:
    return caption(shown(make_findings(), figure))


def test_numbers_that_span_much_have_a_logarithmic_axis() -> None:
    assert drawn(LINES)[0].get_xscale() == "log"
    findings = make_findings()
    names = {"32": "32", "128": "100", "512": "64"}  # less than a factor of 4

    def renamed(arm: ArmFound) -> ArmFound:
        size = names.get(arm.levels.get("output size", ""))
        return replace(arm, levels=arm.levels | ({"output size": size} if size else {}))

    axes = findings.axes | {"output size": list(names.values())}
    close = replace(findings, arms=tuple(map(renamed, findings.arms)), axes=axes)
    bare = replace(LINES, paper={})
    assert drawn(bare, close)[0].get_xscale() == "linear"
    ticks = [label.get_text() for label in drawn(bare, close)[0].get_xticklabels()]
    assert ticks == ["32", "64", "100"]


def test_bands_where_they_are_known_and_else_the_seeds() -> None:
    axes = drawn(replace(LINES, measures=("linear/h",), paper={}))[0]
    assert [type(one).__name__ for one in axes.collections] == ["FillBetweenPolyCollection"] * 3
    findings = make_findings()
    few = replace(findings, arms=tuple(replace(a, plus_minus={}) for a in findings.arms))
    figure = replace(LINES, measures=("linear/h",), paper={})
    dots = [one for one in drawn(figure, few)[0].collections if np.shape(one.get_offsets())[0] == 5]
    assert len(dots) == 3 + 6  # the level line and six places
    assert "dots: single seeds" in caption(shown(few, figure))


def test_a_grid_has_its_values_means_and_blanks() -> None:
    ours, paper = drawn(GRID)
    texts = [text.get_text() for text in ours.texts]
    assert texts[:9] == ["40.0", "46.0", "52.0", "43.0", "49.0", "55.0", "", "52.0", "58.0"]
    assert texts[9:] == ["46.0", "49.0", ""], "no mean of a row that is not complete"
    assert [t.get_text() for t in paper.texts if t.get_text()] == ["33.1", "56.3"]
    assert "1 place without a finished run left blank" in words(GRID)
    assert "last column: the mean of each row" in words(GRID)


def test_measures_of_several_units_have_a_panel_each() -> None:
    upper, lower = drawn(replace(LINES, measures=("linear/h", "rank/h"), paper={}))
    assert upper.get_ylabel() == "linear probe on h, %"
    assert lower.get_ylabel() == "effective rank on h"


def test_a_place_with_several_arms_is_their_mean_by_seed() -> None:
    figure = replace(GRID, kind="bars", along="second", by="", paper={}, levels={})
    found = shown(make_findings(), figure)
    point = found.series[0].points["colour"]
    assert point.arms == 3
    mean = sum(accuracy(first, "colour") for first in OPERATORS) / 3
    assert point.by_seed == pytest.approx({0: mean - 0.01, 1: mean, 2: mean + 0.01})
    assert "each value is the mean of up to 3 arms" in caption(found)


def test_the_terminal_says_it_in_eighty_columns(out: Path) -> None:
    text = study_text(out)
    assert max(map(len, (line for line in text.splitlines() if "±" in line))) <= 80
    assert "  supported: mlp − linear +3.1 points, +1.1 to +5.1: supported." in text


def test_three_seeds_have_no_verdict() -> None:
    findings = make_findings()
    few = [replace(a, levels=a.levels) for a in findings.arms if len(a.seeds) == 3]
    said = opening(replace(findings, arms=tuple(few)))
    assert "3 of 5 seeds: no verdict." in said
