"""The report of one run, against made-up results whose every number is known."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from test_report import Page, contents, missing, page_of

from headwise.errors import UserError
from headwise.evaluation.protocols.transformations import PAPER
from headwise.files import write_json
from headwise.report import evaluation_text, rebuild, write_run_report
from headwise.report.plots.grids import most_confused
from headwise.report.prose.evaluation import plain_evaluation
from headwise.report.reading.evaluation import Evaluation, read_run
from headwise.report.tables.evaluation import table_by_place
from headwise.report.tables.numbers import label, number_text, p_text
from headwise.runs.directory import Run
from headwise.runs.results import Result, Unit, bootstrap_mean
from headwise.runs.sections import Section
from headwise.runs.version_one import lift_results

TAPS = ("f1", "f2", "f3", "f4", "h", "g1", "g2", "z")
LINEAR = (0.41, 0.52, 0.633, 0.742, 0.813, 0.806, 0.772, 0.689)
KNN = (0.352, 0.4455, 0.571, 0.688, 0.782, 0.7875, 0.769, 0.7015)
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPECTRUM = np.exp(-np.arange(64) / 9.0).astype(np.float32)
N = 2000
DATA = {"data": "cifar10", "fingerprint": "abc123"}

Old = dict[str, dict[str, Any]]
"""Results as version 1 had them: short to write."""
Planted = tuple[Old, dict[str, np.ndarray]]


def each(share: float) -> torch.Tensor:
    """1 for that share of the test images. Who reads more is right wherever who reads less is."""
    return (torch.arange(N) < round(share * N)).double()


def measured(protocol: str, values: dict[str, float], **settings: Any) -> Planted:
    """Accuracies as an evaluation writes them."""
    results, arrays = {}, {}
    about = {"seeds": [0], "protocol": protocol, "version": 1, **DATA, **settings}
    for name, share in values.items():
        right = each(share)
        interval = list(bootstrap_mean(right))
        results[name] = {"value": right.mean().item(), "n": N, "interval": interval, **about}
        arrays[f"each/{name}"] = right.numpy()
    return results, arrays


def plain(protocol: str, values: dict[str, float], **settings: Any) -> Old:
    """Other numbers, with an interval."""
    about = {"seeds": [0], "protocol": protocol, "version": 1, **DATA, **settings}
    return {
        name: {"value": value, "n": 1024, "interval": [value - 0.0137, value + 0.0137], **about}
        for name, value in values.items()
    }


def everything() -> Planted:
    """Every protocol once."""
    parts = [
        measured(
            "linear", dict(zip([f"linear/{t}" for t in TAPS], LINEAR, strict=True)), chance=0.1
        ),
        measured("linear", {"linear/pixels": 0.394, "linear/untrained": 0.428}, chance=0.1),
        measured("linear", {"linear_top5/h": 0.9815, "linear_per_class/h": 0.8095}, chance=0.5),
        measured("linear_10", {"linear_10/h": 0.7485}, chance=0.1),
        measured("knn", dict(zip([f"knn/{t}" for t in TAPS], KNN, strict=True)), k=10, chance=0.1),
        measured("knn", {"knn/pixels": 0.3385, "knn/untrained": 0.3715}, k=10, chance=0.1),
        measured("cluster", {"cluster/h": 0.5625, "cluster/z": 0.5345}, chance=0.117),
        measured("semi", {"semi_1/finetuned": 0.6335, "semi_1/scratch": 0.3125}, chance=0.1),
        measured("semi", {"semi_10/finetuned": 0.7865, "semi_10/scratch": 0.5575}, chance=0.1),
        measured("finetune", {"finetune/h": 0.8965, "finetune/g1": 0.9015}, chance=0.1),
        measured("finetune", {"finetune/z": 0.8915, "finetune/scratch": 0.8545}, chance=0.1),
        measured("transfer", {"transfer_linear/dtd": 0.6215}, metric="top1", chance=0.021),
        measured("transfer", {"transfer_linear/pets": 0.7025}, metric="per_class", chance=0.027),
        measured("transfer", {"transfer_finetune/pets": 0.7335}, metric="per_class", chance=0.027),
        measured("leakage", {"leakage_knn/shuffled": 0.7015, "leakage_knn/sorted": 0.9985}),
        measured("leakage", {"leakage_knn/singleton": 0.6425}),
    ]
    for i, task in enumerate(PAPER):
        values = {"h": 0.985 - 0.11 * i, "z": 0.91 - 0.15 * i, "untrained": 0.875 - 0.135 * i}
        named = {f"transformation_{task}/{tap}": value for tap, value in values.items()}
        parts.append(measured("transformations", named, chance=PAPER[task]["chance"]))
    parts += [(found, {}) for found in (*unlabelled(), *robust())]
    results = {name: result for part, _ in parts for name, result in part.items()}
    arrays = {name: array for _, part in parts for name, array in part.items()}
    arrays |= {f"spectrum/rank/{tap}": SPECTRUM ** (1 + i / 4) for i, tap in enumerate(TAPS)}
    arrays |= {"confusion/linear/h": confusion(10)}
    verdict = "z depends on its batch-mates: class-sorted batches read 29.7 points higher"
    results |= plain("leakage", {"leakage/z": 0.297}, verdict=verdict)
    higher = {"p_value": 0.0004, "verdict": "higher", "against": "b"}
    results |= plain("difference", {"difference/linear/h": 0.018}, **higher)
    same = {"p_value": 0.4, "verdict": "no difference shown", "against": "b"}
    results |= plain("difference", {"difference/rank/z": -1.25}, **same)
    results |= plain("fusion", {"fusion_auroc/g2": 0.623})
    return results, arrays


def unlabelled() -> list[Old]:
    ranks = {f"rank/{tap}": 61.25 + 37.125 * i for i, tap in enumerate(TAPS)}
    geometry = {
        "uniformity/h": -2.917, "uniformity/z": -3.641, "alignment/h": 0.276, "alignment/z": 0.183,
        "std/h": 0.331, "separation/h": 0.218, "cka/h-z": 0.477, "renyi/h-z": 3.119,
    }  # fmt: skip
    factors = {
        f"factor_{name}/{tap}": value + shift
        for name, value in (("hue", 0.622), ("angle", 0.371), ("size", 0.844))
        for tap, shift in (("h", 0.0), ("g1", -0.152), ("z", -0.301))
    }
    parameters = {
        f"transformation_{name}/{tap}": value - 0.211 * (tap == "z")
        for name, value in (
            ("crop_x", 0.513),
            ("crop_area", 0.627),
            ("hue", 0.409),
            ("blur", 0.716),
        )
        for tap in ("h", "z")
    }
    return [
        plain("geometry", ranks | geometry),
        plain("factors", factors | {"factors/h": 0.612}, chance=0.0),
        plain("transformations", parameters, chance=0.0),
    ]


def robust() -> list[Old]:
    strengths = {"0.25": 0.0, "0.5": 0.084, "1": 0.237}
    graded = ("crop", "colour", "grey", "blur", "noise", "sobel", "cutout")
    names = {f"{kind}_{s}": drop for kind in graded for s, drop in strengths.items()}
    names |= {"flip": 0.004, "rotation_90": 0.3, "rotation_180": 0.27, "rotation_270": 0.31}
    accuracy = {f"robustness_{name}/h": 0.7885 - drop for name, drop in names.items()}
    cosine = {f"invariance_{name}/h": 0.973 - 1.7 * drop for name, drop in names.items()}
    return [
        plain("robustness", {"robustness_clean/h": 0.8095} | accuracy, chance=0.1),
        plain("robustness", cosine, chance=0.213),
    ]


def confusion(classes: int) -> np.ndarray:
    """Class 3 is taken for class 5 twice as often as any for any other."""
    counts = np.full((classes, classes), 2)
    np.fill_diagonal(counts, 160)
    counts[3, 5], counts[3, 3] = 40, 122
    return counts


def make_run(path: Path, results: Old, arrays: dict[str, np.ndarray]) -> Path:
    """A finished and evaluated run."""
    write_json(path / "config.json", {"data": {"spec": "cifar10"}, "head": {"name": "mlp"}})
    write_json(path / "environment.json", {"device": "cpu", "versions": {"torch": "2.11.0"}})
    run = Run(path)
    run.finish()
    add(run, results, arrays)
    return path


def add(
    run: Run, results: Old, arrays: dict[str, np.ndarray], classes: tuple[str, ...] = CLASSES
) -> None:
    """Results, and arrays of the first data set."""
    sections = lift_results(results, classes)
    for section in sections:
        run.add_results(section.data, section.results)
    for section in sections[:1]:
        run.add_arrays(section.data, arrays)


def evaluation_of(path: Path) -> Evaluation:
    return read_run(path).evaluations[0]


def sentences(path: Path, planted: Planted) -> str:
    return " ".join(plain_evaluation(evaluation_of(make_run(path, *planted))))


class Tables(HTMLParser):
    """The cells of every table by section, row and column."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: dict[tuple[str, str, str], str] = {}
        self.section, self.rows = "", [[]]
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.section = dict(attrs).get("id") or ""
        elif tag == "table":
            self.rows = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False
        elif tag == "table":
            columns, *rows = self.rows
            for row in rows:
                assert len(row) == len(columns)
                for column, text in zip(columns[1:], row[1:], strict=True):
                    self.cells[self.section, row[0], column] = text.strip()

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data.replace("\xa0", " ")


def place(result: Result) -> tuple[str, str, str]:
    """Section, row and column where a number is to be found."""
    words, where = label(result), result.where
    if result.against is not None:
        return "differences", f"{words}, {where}", "difference"
    match result.protocol:
        case "knn" | "linear" | "linear_10" | "cluster":
            return "taps", words, where
        case "semi" | "finetune":
            return "labels", words, where
        case "geometry" if result.measure in ("cka", "renyi", "renyi_shuffled"):
            return "pairs", where, words
        case "transfer":
            return "transfer", "pets, balanced accuracy" if where == "pets" else where, words
        case "robustness":
            words = "accuracy" if result.measure == "robustness" else "cosine"
            return "robustness", result.variant.replace("_", " "), f"{words}, {where}"
        case "fusion":
            return "others", words, where
        case protocol:
            return protocol, words, where


def expected(result: Result) -> str:
    """A result as it is to be read, written out anew."""
    shares = (
        "(knn|linear|semi|finetune|transfer|robustness|leakage).*|cluster/.*"
        "|transformation_(grey|rotation|noise|sobel)/.*"
    )
    name = result.key.removeprefix("difference/")
    decimals = 1 if name.startswith("rank/") or re.fullmatch(shares, name) else 3
    scale = 100 if re.fullmatch(shares, name) else 1
    sign = "+" if result.against is not None else ""
    text = f"{scale * result.value:{sign}.{decimals}f}".replace("-", "−")
    assert result.interval is not None
    low, high = result.interval
    return f"{text} ± {scale * (high - low) / 2:.{decimals}f}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("report") / "mlp-run", *everything())
    assert write_run_report(path) == path / "report.html"
    return path


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return page_of(run)


def test_every_number_is_in_its_place(run: Path, page: Page) -> None:
    cells = Tables((run / "report.html").read_text(encoding="utf-8")).cells
    results = Run(run).sections[0].results
    assert len(results) == len(everything()[0])
    found = {key: cells.get(place(result)) for key, result in results.items()}
    assert found == {key: expected(result) for key, result in results.items()}
    assert cells["taps", "linear probe", "chance"] == "10.0"
    assert cells["taps", "linear probe", "n"] == "2,000"
    assert cells["taps", "linear probe", "seeds"] == "1"
    assert {column for section, _, column in cells if section == "differences"} == {
        "difference",
        "n",
    }, "two networks are described: no p, no verdict"
    assert not missing(["mlp-run", "cifar10", "abc123", "2.11.0", "k = 10"], page.text)


def test_every_section_is_there_and_every_link_leads_somewhere(page: Page) -> None:
    anchors = "taps transformations factors geometry pairs labels transfer leakage robustness"
    assert {*anchors.split(), "differences", "others", "definitions"} <= set(page.ids)
    within = [link[1:] for link in page.links if link.startswith("#")]
    assert set(within) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_page_needs_nothing_else(page: Page) -> None:
    assert all(address.startswith(("data:", "#")) for address in page.loaded)
    assert "script" not in page.tags
    outside = [link for link in page.links if not link.startswith("#")]
    assert all(link.startswith("https://arxiv.org/abs/") for link in outside)


def test_figures_are_on_the_page_and_in_files(run: Path, page: Page) -> None:
    names = "taps confusion transformations transformation-parameters factors spectra semi leakage"
    names = [*names.split(), "robustness"]
    for name in names:
        assert (run / "figures" / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
        with Image.open(run / "figures" / f"{name}.png") as image:
            assert image.width >= 800
        assert f"{name}-figure_1" in page.ids
    assert page.tags.count("svg") == len(names) == len(list((run / "figures").glob("*.svg")))
    html = (run / "report.html").read_text(encoding="utf-8")
    described = re.findall(r'<figure [^>]*aria-label="([^"]*)"', html)
    assert len(described) == len(names)
    assert all(len(words) > 30 for words in described)


def marks(run: Path, figure: str, colour: str) -> np.ndarray:
    """Where a figure's marks of one colour stand, from the left and from the top."""
    svg = (run / "figures" / f"{figure}.svg").read_text(encoding="utf-8")
    uses = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: (#\w+)', svg)
    return np.array([[float(x), float(y)] for x, y, fill in uses if fill == colour])


TICKS = "#6a7178"


def test_the_papers_values_stand_beside(run: Path) -> None:
    """White diamonds, measured against the axis from 0 to 100: SimCLR's table 3, h and z in turn;
    the last one is the legend's."""
    axis = marks(run, "transformations", TICKS)[:, 0]
    diamonds = marks(run, "transformations", "#ffffff")[:-1, 0]
    percents = 100 * (diamonds - axis[0]) / (axis[-1] - axis[0])
    paper = [99.3, 97.4, 67.6, 25.6, 99.5, 59.6, 96.6, 56.3]
    np.testing.assert_allclose(percents, paper, atol=0.01)


def test_curves_go_through_their_values(run: Path) -> None:
    blue = {"taps": LINEAR, "semi": (0.6335, 0.7865, 0.8965)}
    orange = {"taps": KNN, "semi": (0.3125, 0.5575, 0.8545)}
    for figure, step in (("taps", 10), ("semi", 20)):
        axis = marks(run, figure, TICKS)[len(blue[figure]) :, 1]  # first those from left to right
        for colour, values in (("#0072b2", blue[figure]), ("#d55e00", orange[figure])):
            heights = marks(run, figure, colour)[:, 1]
            heights = heights[heights < axis[0]]  # the legend's are below the axes
            percents = step * (axis[0] - heights) / (axis[0] - axis[1])
            np.testing.assert_allclose(percents, 100 * np.array(values), atol=0.01)


def test_a_page_is_rebuilt_byte_for_byte(run: Path) -> None:
    first = contents(run)
    shutil.rmtree(run / "figures")
    assert rebuild(run) == run / "report.html"
    assert contents(run) == first


def test_only_what_was_measured_is_shown(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", plain("geometry", {"rank/h": 61.2, "rank/z": 9.8}), {})
    write_run_report(path)
    page = page_of(path)
    assert "geometry" in page.ids
    assert not {"taps", "transformations", "labels", "leakage", "others"} & set(page.ids)
    assert "svg" not in page.tags
    assert "effective rank of h is 61.2 and of z is 9.8" in page.text.replace("\n", " ")


def ends(results: Old, arrays: dict[str, np.ndarray], a: str, b: str) -> str:
    """The 95 % interval of the difference between two planted values, as it is printed."""
    differences = torch.from_numpy(arrays[f"each/{a}"] - arrays[f"each/{b}"])
    low, high = (f"{100 * abs(end):.1f}" for end in bootstrap_mean(differences))
    return f"{low} to {high}"


def test_sentences(run: Path) -> None:
    found = plain_evaluation(evaluation_of(run))
    results, arrays = everything()
    low, high = (f"{100 * end:.1f}" for end in results["linear/h"]["interval"])
    accuracy = f"reaches 81.3 % accuracy (95 % interval {low} to {high}) on 2,000 test images."
    lead = found[0]
    assert lead.startswith(
        f"A linear probe on h {accuracy} This network is above a constant answer"
    )
    for name, words in (
        ("pixels", "raw pixels (39.4 %) by 41.9 points"),
        ("untrained", "the same encoder untrained (42.8 %) by 38.5 points"),
    ):
        assert f"{words} ({ends(results, arrays, 'linear/h', f'linear/{name}')})" in lead
    for arm, share in (
        ("semi_1/finetuned", "1 % of the"),
        ("semi_10/finetuned", "10 % of the"),
        ("finetune/h", "all"),
    ):
        scratch = arm.partition("/")[0] + "/scratch"
        ours, theirs = (results[name]["value"] for name in (arm, scratch))
        assert (
            f"Fine-tuned on {share} labels, it reaches {100 * ours:.1f} % accuracy and is above "
            f"training from scratch on the same labels ({100 * theirs:.1f} %) by "
            f"{100 * (ours - theirs):.1f} points ({ends(results, arrays, arm, scratch)})."
        ) in lead
    words = " ".join(found)
    gap = "+" + ends(results, arrays, "linear/h", "linear/z").replace("to ", "to +")
    assert f"on z reaches 68.9 %; for this network h − z is +12.4 points ({gap})." in words
    assert "Leakage: z depends on its batch-mates" in words
    assert "another seed could change every number" in words


def test_two_runs_are_described_and_never_ranked(run: Path, page: Page) -> None:
    words = " ".join(plain_evaluation(evaluation_of(run)))
    low, high = (f"{100 * (0.018 + end):+.1f}" for end in (-0.0137, 0.0137))
    assert (
        f"This run minus b, accuracy of a linear probe on h: +1.8 points ({low} to {high}). "
        "One run of each: this describes these two networks; a comparison of heads needs "
        "`headwise compare --seeds 5`."
    ) in words
    assert "One run of each" in page.text
    for rank in ("higher", "highest", "beats", "noise", "best", "confirmed"):
        assert rank not in words.replace("29.7 points higher", "")  # the leakage of one network


def coins(names: dict[str, float], n: int = N) -> Planted:
    """Answers that are right by independent draws."""
    draws = torch.rand(len(names), n, generator=torch.Generator().manual_seed(0))
    results, arrays = measured("linear", names, chance=0.1)
    for (name, share), draw in zip(names.items(), draws, strict=True):
        right = (draw < share).double()
        results[name] |= {"value": right.mean().item(), "interval": list(bootstrap_mean(right))}
        results[name]["n"] = n
        arrays[f"each/{name}"] = right.numpy()
    return results, arrays


def test_no_difference_is_said_with_its_interval(tmp_path: Path) -> None:
    words = sentences(
        tmp_path / "run", coins({"linear/h": 0.5, "linear/z": 0.5, "linear/pixels": 0.5})
    )
    assert re.search(r"h − z is .0\.\d points \(−\d\.\d to \+\d\.\d\): no difference", words)
    assert re.search(r"is not shown to be above raw pixels \(.*points, −\d\.\d to \+\d", words)
    assert "above the same" not in words


@pytest.mark.parametrize(("n", "said"), [(2000, "is below"), (80, "is not shown to be above")])
def test_below_a_baseline_is_said_plainly(tmp_path: Path, n: int, said: str) -> None:
    """25.0 against 31.5 %: with few images the interval says that it is open, with many it is
    below; never that the two do not differ."""
    values = {"linear/h": 0.25, "linear/pixels": 0.315, "linear/untrained": 0.2}
    found = plain_evaluation(evaluation_of(make_run(tmp_path / "run", *coins(values, n))))
    assert f"This network {said} raw pixels" in found[0]
    assert "No difference" not in " ".join(found)


@pytest.mark.parametrize("gap", [0.0, 0.01, 0.02, 0.03, 0.05, -0.03])
def test_every_sentence_agrees_with_its_interval(tmp_path: Path, gap: float) -> None:
    """With two tests, one of twenty images' choices said "no difference" beside +0.8 to +15.8."""
    for n in (60, 300, 2000):
        planted = coins({"linear/h": 0.5 + gap, "linear/z": 0.5, "linear/pixels": 0.5}, n)
        words = sentences(tmp_path / f"run-{n}", planted)
        low, high = (
            float(end.replace("−", "-"))
            for end in re.findall(r"h − z is \S+ points \((\S+) to (\S+)\)", words)[0]
        )
        assert ("no difference between them is shown" in words) == (low <= 0 <= high)
        for side, ends in re.findall(
            r"is (below|above) raw pixels .*? by \S+ points \((.*?)\)", words
        ):
            assert side in ("below", "above")
            assert all(float(end) > 0 for end in ends.split(" to "))


def test_what_was_not_tested_is_said(tmp_path: Path) -> None:
    results, arrays = measured("linear", {"linear/h": 0.8, "linear/z": 0.5, "linear/pixels": 0.4})
    del arrays["each/linear/z"], arrays["each/linear/pixels"]
    words = sentences(tmp_path / "run", (results, arrays))
    assert "above raw pixels (40.0 %) by 40.0 points (untested)" in words
    assert "z" not in re.findall(r"\bz\b", words)


def unbalanced() -> Planted:
    """700 good tiles, 200 cracked, 100 frayed: h is right on nearly every good one and on few
    others, and pixels on all good ones."""
    truth = np.repeat([0, 1, 2], [700, 200, 100])
    right = {
        "h": np.concatenate([np.arange(700) < 665, np.arange(200) < 40, np.arange(100) < 10]),
        "z": truth == 0,
        "pixels": np.concatenate([np.arange(700) < 690, np.arange(200) < 120, np.arange(100) < 30]),
    }
    results, arrays = measured("linear", {})
    for where, answers in right.items():
        weights = len(truth) / (3 * np.bincount(truth)[truth])
        for key, each, chance in (
            (f"linear/{where}", answers.astype(float), 0.7),
            (f"linear_per_class/{where}", answers * weights, 1 / 3),
        ):
            found, _ = measured("linear", {key: 0.5}, chance=chance)
            interval = list(bootstrap_mean(torch.from_numpy(each)))
            results[key] = found[key] | {
                "value": float(each.mean()),
                "n": 1000,
                "interval": interval,
            }
            arrays[f"each/{key}"] = each
    arrays |= {"truth/constant": truth, "each/constant": (truth == 0).astype(float)}
    return results, arrays


def test_under_imbalance_balanced_accuracy_and_recall_lead(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", {}, {})
    add(Run(path), *unbalanced(), classes=("good", "crack", "fray"))
    found = plain_evaluation(evaluation_of(path))
    assert found[0].startswith(
        "The largest of 3 classes has 70.0 % of the test images, so balanced accuracy comes first. "
        "A linear probe on h reaches 41.7 % balanced accuracy (95 % interval "
    )
    assert "This network is below raw pixels (62.9 %) by 21.2 points (" in found[0]
    assert "This network is above a constant answer (33.3 %) by 8.3 points (" in found[0]
    assert found[0].endswith(
        "The plain accuracy is 71.5 % for h, 70.0 % for a constant answer and "
        "84.0 % for raw pixels."
    )
    assert found[1] == (
        "Recall in each class, rarest first: fray 10.0 % of 100, crack 20.0 % of 200 and "
        "good 95.0 % of 700 test images."
    )
    assert found[2].startswith("Was pretraining on these images worth it for this network? That is")
    assert "The same probe on z reaches 33.3 %; for this network h − z is +8.3 points" in found[3]
    write_run_report(path)
    html = (path / "report.html").read_text(encoding="utf-8")
    assert html.index("linear probe, balanced accuracy") < html.index('"name">linear probe</th>')
    svg = (path / "figures" / "taps.svg").read_text(encoding="utf-8")
    assert "% balanced accuracy" in svg


def test_below_a_constant_answer(tmp_path: Path) -> None:
    """Image by image: 66.8 % and 70.0 % have intervals that overlap, their difference leaves out
    0."""
    results, arrays = unbalanced()
    key = "linear/h"
    right = (np.arange(1000) < 668).astype(float)
    results = {key: results[key] | {"value": 0.668, "interval": [0.63, 0.70]}}
    arrays = {f"each/{key}": right, "each/constant": arrays["each/constant"]}
    words = sentences(tmp_path / "run", (results, arrays))
    assert "This network is below a constant answer (70.0 %) by 3.2 points (2." in words


def test_of_the_identity_z_is_h(tmp_path: Path) -> None:
    planted = measured("linear", {"linear/h": 0.8, "linear/z": 0.8})
    path = make_run(tmp_path / "run", *planted)
    for head, said in (
        ({"name": "identity"}, "The head is the identity, so z is h."),
        ({"name": "identity", "batch_norm": True}, "no difference between them is shown"),
    ):
        write_json(path / "config.json", {"data": {"spec": "cifar10"}, "head": head})
        assert said in " ".join(plain_evaluation(evaluation_of(path)))


def test_a_short_run_is_called_that_before_all_else(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", *measured("linear", {"linear/h": 0.8}))
    Run(path).log({"step": 24, "images_seen": 24 * 64, "loss": 4.5})
    found = plain_evaluation(evaluation_of(path))
    assert found[0] == "24 steps: too short to judge a head."
    write_run_report(path)
    assert found[0] in page_of(path).text


def test_what_plus_minus_means_stands_below_every_table_that_has_one(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    tables = re.findall(r"<table.*?</table>(.*?)(?=<table|</section>)", html, flags=re.DOTALL)
    with_spread = re.findall(r"<table.*?</table>", html, flags=re.DOTALL)
    assert len(tables) == len(with_spread)
    for table, after in zip(with_spread, tables, strict=True):
        assert ("±" in table) == ("± is half of the 95 % interval over test images." in after)


def test_two_data_sets_never_meet(tmp_path: Path) -> None:
    """Each has its own part of the page: title, sentences, tables, figures and tests."""
    values = {"linear/h": 0.8, "linear/g1": 0.75, "linear/z": 0.5, "linear/pixels": 0.4}
    path = make_run(tmp_path / "run", *measured("linear", values, chance=0.1))
    others, arrays = measured("linear", {name: v - 0.111 for name, v in values.items()})
    del others["linear/pixels"]
    for result in others.values():
        result |= {"data": "builtin:digits", "fingerprint": "other"}
    add(Run(path), others, arrays, classes=("0", "1"))
    write_run_report(path)
    page, html = page_of(path), (path / "report.html").read_text(encoding="utf-8")
    assert {"data-1", "taps", "data-2", "taps-2"} <= set(page.ids)
    assert {"taps-figure_1", "taps-2-figure_1"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    cells = Tables(html).cells
    assert cells["taps", "linear probe", "h"].startswith("80.0 ")
    assert cells["taps-2", "linear probe", "h"].startswith("68.9 ")
    assert ("taps-2", "linear probe", "pixels") not in cells
    assert {section for section, *_ in cells} == {"taps", "taps-2"}
    first, second = read_run(path).evaluations
    assert "pixels" in " ".join(plain_evaluation(first))
    assert "pixels" not in " ".join(plain_evaluation(second))
    assert not missing(["cifar10", "builtin:digits", "10 classes", "2 classes"], page.text)


def test_a_command_speaks_of_what_it_was_asked(tmp_path: Path) -> None:
    """Not of an earlier probe, and not of other images."""
    path = make_run(tmp_path / "run", *measured("linear", {"linear/h": 0.8, "linear/z": 0.5}))
    others, arrays = measured("knn", {"knn/h": 0.7})
    add(Run(path), others, arrays)
    run = Run(path)
    asked = {key: r for key, r in run.sections[0].results.items() if r.protocol == "knn"}
    text = evaluation_text(path, Section(data=run.sections[0].data, results=asked))
    assert text.startswith("On cifar10: A nearest-neighbour probe on h reaches 70.0 %")
    assert "80.0" not in text
    assert "linear" not in text


def test_a_z_that_depends_on_its_batch_is_said(tmp_path: Path) -> None:
    values = {"linear/h": 0.96, "linear/z": 0.5}
    path = make_run(tmp_path / "run", *measured("linear", values, chance=0.95))
    evaluation = read_run(path).evaluations[0]
    assert "batch" not in " ".join(plain_evaluation(evaluation))
    aware = dataclasses.replace(evaluation, batch_aware=True)
    words = " ".join(plain_evaluation(aware))
    assert "on z, which also depends on the images in its batch, reaches 50.0 %" in words


def test_other_settings_stand_apart(tmp_path: Path) -> None:
    """h over five evaluation seeds and z over one are in no row, sentence or test together."""
    values = {"linear/h": 0.8, "linear/z": 0.5, "linear/pixels": 0.4, "linear/g1": 0.9}
    results, arrays = measured("linear", values, chance=0.1)
    for name in ("linear/h", "linear/pixels"):
        results[name] |= {"seeds": [0, 1, 2, 3, 4], "std": 0.01}
    path = make_run(tmp_path / "run", results, arrays)
    write_run_report(path)
    cells = Tables((path / "report.html").read_text(encoding="utf-8")).cells
    assert cells["taps", "linear probe", "h"].startswith("80.0 ")
    assert ("taps", "linear probe", "z") not in cells
    assert cells["apart", "linear probe, z", "value"].startswith("50.0 ")
    assert cells["apart", "linear probe, z", "seeds"] == "1"
    words = " ".join(plain_evaluation(read_run(path).evaluations[0]))
    assert "raw pixels" in words
    assert "50.0" not in words
    assert "90.0" not in words


def test_a_run_of_version_one_makes_a_page(tmp_path: Path) -> None:
    """As it lies on disk: one dictionary of results, arrays without the name of their images."""
    results, arrays = everything()
    path = make_run(tmp_path / "run", {}, {})
    write_json(path / "results.json", {"schema": 1, "results": results})
    old = {"parameters": {"value": 1024}, **results}
    write_json(path / "results.json", {"schema": 1, "results": old})
    np.savez(path / "evaluation.npz", classes=np.array(CLASSES), **arrays)  # pyrefly: ignore
    rebuild(path)
    make_run(tmp_path / "new" / "run", results, arrays)
    rebuild(tmp_path / "new" / "run")
    assert contents(path) == contents(tmp_path / "new" / "run")


def test_no_tap_is_chosen_by_looking(tmp_path: Path) -> None:
    values = {"linear/h": 0.8, "linear/g1": 0.85, "linear/g2": 0.6, "linear/z": 0.5}
    assert "g1" not in sentences(tmp_path / "run", measured("linear", values))


def test_most_confused(run: Path, tmp_path: Path) -> None:
    most = most_confused(evaluation_of(run))
    assert most.startswith("The most common mistakes: cat as dog (22 %), ")
    perfect = {"confusion/linear/h": np.eye(4, dtype=int)}
    results, arrays = measured("linear", {"linear/h": 1.0})
    path = make_run(tmp_path / "run", results, arrays | perfect)
    assert most_confused(evaluation_of(path)) == ""


@pytest.mark.parametrize("classes", [2, 100, 400])
def test_many_classes(tmp_path: Path, classes: int) -> None:
    """With names that are not those of these classes there are numbers; some classes are empty."""
    counts = confusion(classes) if classes > 5 else np.array([[5, 1], [0, 0]])
    results, arrays = measured("linear", {"linear/h": 0.8})
    path = make_run(tmp_path / "run", {}, {})
    names = (
        tuple(f"a class with a long name {i}" for i in range(100)) if classes == 100 else CLASSES
    )
    add(Run(path), results, arrays | {"confusion/linear/h": counts}, names)
    write_run_report(path)
    svg = (path / "figures" / "confusion.svg").read_text(encoding="utf-8")
    assert svg.count("a class with a lo…") == (200 if classes == 100 else 0)
    assert "nan" not in svg.lower()


def test_several_seeds_show_their_spread(tmp_path: Path) -> None:
    results, arrays = measured("linear", {"linear/h": 0.8}, chance=[0.1, 0.1])
    results["linear/h"] |= {"seeds": [0, 1, 2], "std": 0.0123}
    path = make_run(tmp_path / "run", results, arrays)
    write_run_report(path)
    assert "σ 1.2" in page_of(path).text
    assert "3 seeds" in page_of(path).text


def test_words_from_outside_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> & $x$"
    results, arrays = measured("transfer", {f"transfer_linear/{evil}": 0.5})
    results |= measured("linear", {"linear/h": 0.6})[0]
    for result in results.values():
        result["data"] = evil
    path = make_run(tmp_path / "run", {}, {})
    add(Run(path), results, arrays | {"confusion/linear/h": np.eye(2, dtype=int)}, (evil, "b"))
    write_run_report(path)
    page = page_of(path)
    assert "script" not in page.tags
    assert page.text.count(evil) >= 2


def test_errors_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"directory with a config\.json"):
        write_run_report(tmp_path)
    path = make_run(tmp_path / "run", {}, {})
    with pytest.raises(UserError, match=r"must have results; it has none; run `headwise evaluate"):
        write_run_report(path)
    (path / "results.json").write_text(json.dumps({"schema": 99, "results": {}}))
    with pytest.raises(UserError, match="got 99"):
        write_run_report(path)
    assert not (path / "report.html").exists()


def test_numbers_as_text() -> None:
    assert number_text("share", 0.1234) == "12.3"
    assert number_text("rank", -1.25) == "−1.2"
    assert number_text("score", 0.1234) == "0.123"
    assert number_text("nat", 1234.5) == "1,234"
    for unit in get_args(Unit):
        assert "−" not in number_text(unit, -1e-9), "what rounds to 0 has no sign"
    assert p_text(0.0004) == "< 0.001"
    assert p_text(None) == ""


def test_the_table_says_which_transformations_pretraining_had():
    def read(task: str, tap: str, settings: dict[str, Any]) -> Result:
        about: dict[str, Any] = {"protocol": "transformations", "measure": "transformation"}
        about |= {"variant": task, "where": tap, "unit": "share", "value": 0.5, "n": 10}
        return Result(**about, version=1, settings=settings)

    results = [
        read("rotation", "h", {"in_pretraining": True}),
        read("rotation", "untrained", {}),
        read("noise", "h", {"in_pretraining": False}),
    ]
    table = table_by_place(results)
    said = [column.title for column in table.columns].index("in pretraining")
    assert [row.cells[said].text for row in table.rows] == ["yes", "no"]
    older = table_by_place([read("noise", "h", {})])
    assert "in pretraining" not in [column.title for column in older.columns]
