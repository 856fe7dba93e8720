"""The report, against a made-up comparison whose every number is known."""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from planted_seeds import answers_with

from headwise.config import to_dict
from headwise.errors import UserError
from headwise.evaluation.statistics.over_seeds import differences
from headwise.report import comparison_text, rebuild, write_report
from headwise.report.plots.maps import THUMBNAIL_PX, thumbnail_canvas
from headwise.report.prose.comparison import plain_result
from headwise.report.reading.summary import summary_of
from headwise.report.tables.comparison import text_table
from headwise.runs.directory import Run
from headwise.runs.results import Result
from headwise.runs.sections import DataIdentity

HEADS = ("identity", "linear", "mlp", "ffn", "transformer")
CLASSES = ["circle", "square", "triangle", "star", "ring", "cross", "moon", "heart", "arrow", "hex"]
ACCURACIES = ("linear/h", "linear/z", "knn/h", "knn/z", "knn_weighted/h")
VALUES = {
    "identity": (0.612, 0.612, 0.574, 0.574, 0.581),
    "linear": (0.634, 0.571, 0.602, 0.548, 0.611),
    "mlp": (0.7137, 0.583, 0.6765, 0.566, 0.689),
    "ffn": (0.5725, 0.431, 0.5405, 0.422, 0.549),
    "transformer": (0.7015, 0.542, 0.684, 0.531, 0.6925),
}


def make_summary(*, seeds: int = 1, labels: bool = True) -> dict[str, Any]:
    heads: dict[str, dict[str, float]] = {}
    for i, name in enumerate(HEADS):
        heads[name] = dict(zip(ACCURACIES, VALUES[name], strict=True)) if labels else {}
        heads[name] |= {"rank/h": 31.4 + 17.3 * i, "rank/z": 12.7 + 9.1 * i}
        heads[name] |= {"parameters": 1 + 98_432 * i * i, "seconds": 41.2 + 3.3 * i}
    summary: dict[str, Any] = {
        "heads": heads,
        "baselines": {},
        "chance": None,
        "n_test": 2000,
        "seeds": seeds,
        "data": "builtin:shapes",
        "images": 5000,
        "epochs": 20,
        "classes": [],
    }
    if labels:
        summary |= {"chance": 0.1, "classes": CLASSES}
        summary["baselines"] = {
            "pixels": {"knn/h": 0.318, "linear/h": 0.277},
            "untrained": {"knn/h": 0.401, "linear/h": 0.4645},
        }
        summary["factors"] = {
            name: {
                "h": {"hue": 0.41 + 0.05 * i, "angle": 0.23 + 0.06 * i, "size": 0.87 - 0.03 * i},
                "z": {"hue": 0.41 - 0.09 * i, "angle": 0.21 - 0.04 * i, "size": 0.87 - 0.14 * i},
            }
            for i, name in enumerate(HEADS)
        }
    if labels:
        summary["differences"] = planted_differences(summary, seeds)
        if seeds == 1 or seeds >= 5:
            half = {key: 0.008 + 0.001 * i for i, key in enumerate(ACCURACIES)}
            summary["plus_minus"] = {
                "heads": {name: half | ({"rank/h": 1.23} if seeds > 1 else {}) for name in HEADS},
                "baselines": {"untrained": {"knn/h": 0.011, "linear/h": 0.013}},
            }
    return summary


def planted_differences(summary: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Of answers with just these accuracies at every seed."""
    heads, bases = summary["heads"], summary["baselines"]
    rows = {name: answers_with(heads[name]["linear/h"], seeds) for name in heads}
    rows |= {f"{name}, z": answers_with(heads[name]["linear/z"], seeds) for name in heads}
    rows |= {name: answers_with(base["linear/h"], seeds) for name, base in bases.items()}
    rows["constant"] = answers_with(summary["chance"], seeds)
    pairs = {
        "heads": ("linear/h", list(combinations(heads, 2))),
        "baselines": ("linear/h", [(h, base) for base in ("constant", *bases) for h in heads]),
        "taps": ("linear", [(name, f"{name}, z") for name in heads if name != "identity"]),
    }
    return {
        kind: [to_dict(one) for one in differences(measure, rows, asked)]
        for kind, (measure, asked) in pairs.items()
    }


def make_comparison(out: Path, summary: dict[str, Any], *, points: int = 60) -> Path:
    """A directory such as `headwise compare` writes."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary))
    config = {"data": "builtin:shapes", "encoder": {"name": "resnet18"}, "loss": {"τ": 0.5}}
    (out / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 255, (96, 480, 3), dtype=np.uint8)).save(out / "views.png")
    for place, head in enumerate(summary["heads"]):
        for seed in range(summary["seeds"] or 1):
            make_run(out / f"{head}-seed{seed}", summary, place, seed, points)
    return out


def make_run(folder: Path, summary: dict[str, Any], place: int, seed: int, points: int) -> None:
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng([place, seed])
    lines = []
    for step in range(0, 400, 2):
        done = 1 - math.exp(-step / (60 + 25 * place))
        line = {
            "step": step,
            "epoch": (step + 2) / 20,
            "images_seen": 256 * (step + 1),
            "seconds": 0.1 * step,
            "loss": 6.2 - (1.2 + 0.1 * place) * done + 0.05 * noise.standard_normal(),
            "contrastive_accuracy": 0.01 + (0.4 + 0.08 * place) * done,
            "alignment": 1.2 - 0.7 * done,
            "uniformity": -0.4 - 2.9 * done,
            "learning_rate": 1e-3,
            "views_per_second": 1800.0 - 120 * place,
            "memory_mib": 612.0 + 40 * place,
        }
        lines.append(json.dumps(line))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    about: dict[str, Any] = {"where": "h", "unit": "share", "value": 0.6, "n": 2000, "version": 1}
    results = [
        Result(protocol="knn", measure="knn", settings={"k": 20}, **about),
        Result(protocol="linear", measure="linear", **about),
    ]
    data = DataIdentity(spec=summary["data"], fingerprint="abc")
    run = Run(folder)
    run.add_results(data, {result.key: result for result in results})
    environment = {
        "commit": "0123abcd" * 5,
        "dirty": False,
        "versions": {"torch": "2.11.0", "timm": "1.0.20"},
        "device": "cpu",
        "threads": 2,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    labels = noise.integers(0, 10, points) if summary["classes"] else np.full(points, -1)
    angle = 2 * np.pi * labels / 10
    centres = (1.0 + place) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    colour = np.clip(40 + 20 * labels[:, None, None, None], 0, 255)
    thumbnails = np.broadcast_to(colour, (points, 24, 24, 3)).astype(np.uint8).copy()
    thumbnails[:, 6:18, 6:18, 0] = noise.integers(0, 255, (points, 1, 1))
    rate = np.exp(-np.arange(512) / (30.0 + 25 * place))
    spectra = {
        "spectrum/rank/h": (4 * rate).astype(np.float32),
        "spectrum/rank/z": np.where(np.arange(128) < 40 + 20 * place, rate[:128], 0).astype("f4"),
    }
    run.add_arrays(data, spectra)
    arrays = {
        "map": (centres + noise.standard_normal((points, 2))).astype(np.float32),
        "map_labels": labels.astype(np.int64),
        "map_thumbnails": thumbnails,
    }
    np.savez(folder / "analysis.npz", **arrays)  # pyrefly: ignore[bad-argument-type]


class Page(HTMLParser):
    """What a browser would load, link to and show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.loaded.append(value or "")
            self.loaded += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["style"]:
            self.loaded += re.findall(r"url\(([^)]*)\)|@import", data)
        else:
            self.text += data


def page_of(out: Path) -> Page:
    return Page((out / "report.html").read_text(encoding="utf-8"))


def few_heads(summary: dict[str, Any], count: int) -> dict[str, Any]:
    return summary | {"heads": dict(list(summary["heads"].items())[:count])}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = make_comparison(tmp_path_factory.mktemp("one") / "out", make_summary())
    assert write_report(out) == out / "report.html"
    return out


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return page_of(out)


@pytest.fixture(scope="module")
def seeds_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    summary = few_heads(make_summary(seeds=5), 2)
    out = make_comparison(tmp_path_factory.mktemp("five") / "out", summary)
    write_report(out)
    return page_of(out)


@pytest.fixture(scope="module")
def unlabelled_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    summary = few_heads(make_summary(labels=False), 2)
    out = make_comparison(tmp_path_factory.mktemp("unlabelled") / "out", summary)
    write_report(out)
    return out


def printed(summary: dict[str, Any]) -> list[str]:
    """Every number of the summary, as it is to be read."""
    numbers = [f"{100 * summary['chance']:.1f}"] if summary["chance"] else []
    for group in (summary["heads"], summary["baselines"]):
        for values in group.values():
            for key, value in values.items():
                if key.startswith(("knn", "linear")):
                    numbers.append(f"{100 * value:.1f}")
                else:
                    numbers.append(f"{value:,}" if key == "parameters" else f"{value:.1f}")
    for taps in summary.get("factors", {}).values():
        numbers += [f"{value:.2f}" for values in taps.values() for value in values.values()]
    return numbers


def missing(words: list[str], text: str) -> list[str]:
    return [word for word in words if not re.search(rf"(?<![\d.,]){re.escape(word)}(?!\d)", text)]


def test_page_has_every_head_and_number(page: Page) -> None:
    summary = make_summary()
    assert not missing(printed(summary), page.text)
    assert not missing(["builtin:shapes", "5,000", "2,000", "2.11.0", "k = 20"], page.text)


def test_training_measures_are_means_over_the_last_epoch(out: Path, page: Page) -> None:
    for head in HEADS:
        lines = (out / f"{head}-seed0" / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines[-10:]]  # ten lines an epoch
        assert not missing([f"{np.mean(losses):.3f}"], page.text)


def test_every_link_leads_somewhere(page: Page) -> None:
    within = [link[1:] for link in page.links if link.startswith("#")]
    assert set(within) <= set(page.ids)
    measures = "linear knn knn-weighted rank loss contrastive-accuracy alignment uniformity"
    others = "parameters seconds throughput memory pixels untrained chance h z error factors map"
    assert {f"def-{name}" for name in f"{measures} {others}".split()} <= set(within)
    assert len(page.ids) == len(set(page.ids))


def test_every_link_leads_somewhere_under_imbalance(tmp_path: Path) -> None:
    summary = few_heads(make_summary(), 2) | {"unbalanced": True}
    for values in summary["heads"].values():
        values |= {"linear_per_class/h": 0.41, "linear_10/h": 0.5, "knn_self/h": 0.5}
    summary["baselines"]["scratch"] = {"linear/h": 0.5}
    write_report(make_comparison(tmp_path, summary, points=40))
    page = page_of(tmp_path)
    within = [link[1:] for link in page.links if link.startswith("#")]
    assert {"def-per-class", "def-scratch", "def-linear-10", "def-knn-self"} <= set(within)
    assert set(within) <= set(page.ids)


def test_page_needs_nothing_else(page: Page) -> None:
    assert page.loaded, "figures refer to their own clip paths at least"
    assert all(address.startswith(("data:", "#")) for address in page.loaded)
    assert "script" not in page.tags
    outside = [link for link in page.links if not link.startswith("#")]
    assert outside
    assert all(link.startswith("https://arxiv.org/abs/") for link in outside)


def test_figures_are_on_the_page_and_in_files(out: Path, page: Page) -> None:
    names = ["accuracy-linear", "accuracy-knn", "loss", "contrastive-accuracy"]
    names += ["spectrum-h", "spectrum-z", "factors-h", "factors-z"]
    names += [f"map-{head}" for head in HEADS]
    for name in names:
        svg = (out / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<?xml")
        with Image.open(out / "figures" / f"{name}.png") as image:
            assert image.width >= 800
        assert f"{name}-figure_1" in page.ids
    assert page.tags.count("svg") == len(names) == len(list((out / "figures").glob("*.svg")))


def contents(out: Path) -> dict[str, bytes]:
    pages = [out / "report.html", *(out / "figures").iterdir()]
    return {path.name: path.read_bytes() for path in pages}


def test_a_page_is_rebuilt_byte_for_byte(unlabelled_out: Path) -> None:
    first = contents(unlabelled_out)
    shutil.rmtree(unlabelled_out / "figures")
    assert rebuild(unlabelled_out) == unlabelled_out / "report.html"
    assert contents(unlabelled_out) == first


def test_an_unfinished_comparison_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        rebuild(tmp_path)
    (tmp_path / "config.json").write_text('{"heads": ["mlp"]}')
    with pytest.raises(UserError, match="finish it with: headwise compare --resume"):
        rebuild(tmp_path)


def test_a_run_evaluated_on_other_images_keeps_its_place(tmp_path: Path) -> None:
    """The page of a comparison is of the comparison's images."""
    summary = few_heads(make_summary(labels=False), 2)
    write_report(make_comparison(tmp_path, summary))
    before = (tmp_path / "report.html").read_bytes()
    other = DataIdentity(spec="builtin:digits", fingerprint="other")
    run = Run(tmp_path / "identity-seed0")
    result = Result(
        protocol="knn", measure="knn", where="h", unit="share", value=0.1, n=9, version=1
    )
    run.add_results(other, {result.key: result})
    run.add_arrays(other, {"spectrum/rank/h": np.ones(9, dtype=np.float32)})
    assert write_report(tmp_path).read_bytes() == before


def test_spread_over_seeds(seeds_page: Page) -> None:
    assert not missing(["± 0.8", "± 1.2", "± 1.3"], seeds_page.text.replace("\xa0", " "))
    assert "± half of the 95 % interval (other seeds and images)" in seeds_page.text
    assert "Between heads" in seeds_page.text
    assert "identity-seed4" in seeds_page.text


def test_without_labels_only_geometry(unlabelled_out: Path) -> None:
    page = page_of(unlabelled_out)
    summary = few_heads(make_summary(labels=False), 2)
    assert "no labels" in page.text
    assert not missing(printed(summary), page.text)
    assert not {"accuracy-linear-figure_1", "factors-h-figure_1"} & set(page.ids)
    assert {"spectrum-h-figure_1", "map-identity-figure_1"} <= set(page.ids)


def test_words_from_outside_are_escaped(tmp_path: Path) -> None:
    summary = few_heads(make_summary(), 1)
    evil = "<script>alert(1)</script> & $x$"
    summary |= {"classes": [evil, *CLASSES[1:]], "data": evil}
    out = make_comparison(tmp_path / "out", summary, points=40)
    write_report(out)
    page = page_of(out)
    assert "script" not in page.tags
    assert page.text.count(evil) >= 2  # title, heading
    assert f"{evil[:15]}…" in page.text  # the map's legend


def test_a_summary_alone_makes_a_page(tmp_path: Path) -> None:
    summary = {"heads": {"mlp": {"knn/h": None, "linear/h": 0.5}, "linear": None}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    write_report(tmp_path)
    page = page_of(tmp_path)
    assert not missing(["mlp", "linear", "50.0"], page.text)


def test_errors_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no summary\.json; run `headwise compare`"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text('{"heads": {}}')
    with pytest.raises(UserError, match="at least one head"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text('{"heads": {"mlp": {}}')
    with pytest.raises(UserError, match=r"summary\.json must be JSON"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text('{"heads": {"mlp": {}}}')
    (tmp_path / "mlp-seed0").mkdir()
    (tmp_path / "mlp-seed0" / "metrics.jsonl").write_text('{"step": 1}\n{"step"')
    write_report(tmp_path)  # a last line cut short by a crash is left out
    (tmp_path / "report.html").unlink()
    (tmp_path / "mlp-seed0" / "metrics.jsonl").write_text('{"step"\n{"step": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl line 1 must be JSON"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_wrong_kinds_are_named(tmp_path: Path) -> None:
    for wrong in ({"mlp": {"linear/h": "high"}}, {"mlp": 0.5}):
        (tmp_path / "summary.json").write_text(json.dumps({"heads": wrong}))
        with pytest.raises(UserError, match=r"summary\.json must hold"):
            write_report(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(UserError, match="must hold a JSON object"):
        write_report(tmp_path)


def test_text_table() -> None:
    summary = make_summary()
    text = text_table(summary_of(summary))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    by_name = {line.split()[0]: line.split() for line in lines[2:10]}
    assert by_name["mlp"][1:3] == ["71.4", "±0.8"]
    assert by_name["pixels"][1] == "27.7"
    assert by_name["untrained"][1] == "46.5"
    assert by_name["chance"][1:] == ["10.0"] * 5
    assert "± half of the 95 % interval (these networks, other test images)" in text
    assert "−" not in text, "one seed has no table of differences between heads"
    assert not missing([f"{v['parameters']:,}" for v in summary["heads"].values()], text)
    columns = {line.index("±") for line in lines if "±" in line and line.split()[0] in HEADS}
    assert len(columns) == 1  # in line


def test_text_table_without_labels() -> None:
    table = text_table(summary_of(make_summary(labels=False)))
    assert "linear/h" not in table
    assert "chance" not in table
    assert not missing(["31.4", "12.7", "1,574,913", "54.4"], table)


def said(summary: dict[str, Any]) -> str:
    return " ".join(plain_result(summary_of(summary)))


def test_one_seed_describes_and_never_ranks() -> None:
    words = said(make_summary())
    assert words.startswith(
        "Under all 5 heads, a linear probe on h is above a constant answer (10.0 %) by 47.2 to "
        "61.4 points, raw pixels (27.7 %) by 29.5 to 43.6 points and the untrained encoder "
        "(46.5 %) by 10.8 to 24.9 points: that is about these networks."
    )
    assert "There is one run of each head; a comparison needs --seeds 5." in words
    assert "h is above z under linear by 6.3 points (" in words
    assert "Under identity, z is h." in words
    for verdict in ("shown over", "best", "beats", "highest", "noise", "above mlp", "above ffn"):
        assert verdict not in words


def test_two_seeds_say_what_the_images_say_and_no_more() -> None:
    words = said(make_summary(seeds=2))
    assert "Two seeds cannot show a difference between heads." in words
    alike = "mlp above identity, linear and ffn by 8.0 to 14.1 points"
    assert f"the test images tell apart {alike}; identity above ffn by 4.0 points;" in words
    assert "in the networks of each of the 2 seeds" in words
    assert "3 of 5 seeds: no verdict on the heads." in said(make_summary(seeds=3))
    table = text_table(summary_of(make_summary(seeds=2)))
    assert "in seed 2" in table
    assert "verdict" not in table
    assert "±" not in table


def test_five_seeds_judge() -> None:
    words = said(make_summary(seeds=5))
    alike = "mlp above identity, linear and ffn by 8.0 to 14.1 points"
    assert f"8 of 10 differences are shown over 5 seeds: {alike};" in words
    assert "transformer above identity, linear and ffn by 6.8 to 12.9 points;" in words
    assert "h is above z under linear by 6.3 points (" in words
    assert "brings an error of 1.2 to 1.3 points" in words
    assert "in four cases of five takes more test images." in words
    table = text_table(summary_of(make_summary(seeds=5)))
    assert not missing(["shown over 5 seeds", "not shown", "< 0.001"], table)
    assert max(map(len, table.splitlines())) <= 80


def test_the_worst_comes_first() -> None:
    """A head that is below pixels must not lead with what it is above."""
    summary = make_summary(seeds=5)
    summary["baselines"]["pixels"]["linear/h"] = 0.66
    summary["baselines"]["untrained"]["linear/h"] = 0.62
    summary["differences"] = planted_differences(summary, 5)
    words = said(summary)
    assert words.startswith(
        "Under identity and ffn, a linear probe on h is below raw pixels (66.0 %) by 4.8 to 8.8 "
        "points: shown over 5 seeds. Under ffn, a linear probe on h is below the untrained"
    )
    assert "Under identity and linear, no difference is shown between a linear probe on h" in words


def test_sentences_have_the_verdicts_of_the_tables() -> None:
    """A difference that the table calls equivalent is not "not shown" in a sentence."""
    summary = make_summary(seeds=5)
    heads = summary["heads"]
    heads["mlp"]["linear/z"] = heads["mlp"]["linear/h"]
    summary["baselines"]["pixels"]["linear/h"] = heads["ffn"]["linear/h"]
    summary["differences"] = planted_differences(summary, 5)
    for kind, a, b in (("taps", "mlp", "mlp, z"), ("baselines", "ffn", "pixels")):
        one = next(o for o in summary["differences"][kind] if (o["a"], o["b"]) == (a, b))
        one |= {"interval": [-0.01, 0.01], "verdict": "equivalent within 3 points"}
    words = said(summary)
    assert "Under mlp (0.0 points, −1.0 to +1.0), h and z are equivalent within 3 points." in words
    assert "Under ffn, a linear probe on h is equivalent within 3 points to raw pixels (" in words
    assert "no difference is shown" not in words


def test_differences_of_nothing_have_no_sign() -> None:
    summary = make_summary(seeds=5)
    for name in ("identity", "linear"):
        summary["heads"][name]["linear/h"] = 0.6
    summary["differences"] = planted_differences(summary, 5)
    assert not re.search(r"[+−]0\.0\b", said(summary) + text_table(summary_of(summary)))


def test_under_imbalance_the_mean_over_classes_leads() -> None:
    summary = make_summary(seeds=1) | {"unbalanced": True, "chance": 0.71}
    for values in summary["heads"].values():
        values |= {"linear_per_class/h": 0.41, "linear_per_class/z": 0.4}
    summary["recalls"] = {name: {"circle": 0.9, "square": 0.0} for name in HEADS}
    table = text_table(summary_of(summary)).splitlines()
    assert "linear_per_class/h" in table[0]
    assert "recall" in "\n".join(table)
    by_name = {line.split()[0]: line.split() for line in table[2:10]}
    assert by_name["chance"][1] == "10.0", "a constant answer has one class of ten"
    assert "(mean over classes)" in said(summary)


def test_the_terminal_shows_tables_and_words(out: Path) -> None:
    text = comparison_text(out)
    assert text_table(summary_of(make_summary())) in text
    assert said(make_summary()) in text


def test_a_summary_of_before_the_tests_says_only_numbers() -> None:
    old = make_summary()
    del old["differences"], old["plus_minus"]
    old |= {"p_values": {}, "learned": {"mlp": "words"}}
    assert said(old).startswith("A linear probe on h reaches 61.2 % under identity, ")


def test_thumbnails_stand_at_their_points_and_never_overlap() -> None:
    unit = np.array([[0.25, 0.75], [0.26, 0.75], [0.75, 0.25]])
    thumbnails = np.zeros((3, 8, 8, 3), dtype=np.uint8)
    canvas = thumbnail_canvas(unit, np.array([0, 1, -1]), thumbnails)
    side = len(canvas)
    assert canvas[..., 3].astype(bool).sum() == 2 * THUMBNAIL_PX**2  # the second had no room
    assert canvas[side // 4, side // 4].tolist() == [0, 0, 0, 255]  # up is up
    assert canvas[3 * side // 4, 3 * side // 4].tolist() == [0, 0, 0, 255]
    assert canvas[side // 4, 3 * side // 4, 3] == 0
