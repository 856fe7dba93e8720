"""`report.html` of one run, evaluated or with its fusion measured: a page that needs nothing
else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headwise.model.config import PretrainConfig
from headwise.model.config_file import read_config
from headwise.report.pages.definitions import definitions_of
from headwise.report.pages.fusion import fusion_parts
from headwise.report.pages.part import PagePart
from headwise.report.pages.rendering import render, write_page
from headwise.report.pages.sections import evaluation_parts
from headwise.report.plots.drawing import Drawing, style
from headwise.report.prose.evaluation import before_all, plain_evaluation
from headwise.report.reading.evaluation import EvaluatedRun, Evaluation, read_run
from headwise.report.words import counted
from headwise.runs.sections import DataIdentity

_NOT_EVALUATED = "The features of this run were not evaluated; run `headwise evaluate` to do so."


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """All that the page says of one data set."""

    anchor: str
    title: str
    """The data set as the user named it."""
    facts: list[str]
    sentences: list[str]
    parts: list[PagePart]

    @property
    def figures(self) -> list[Drawing]:
        return [drawing for part in self.parts for drawing in part.figures]


def write_run_report(run_path: Path) -> Path:
    """Write `report.html` and, as SVG, PNG and CSV, `figures/` into the run's directory; the path
    of the page.

    Reads what `headwise evaluate`, `headwise fusion` and pretraining wrote there; the same content
    gives the same bytes. Raises `UserError` if there is no finished run, or no result.
    """
    run = read_run(run_path)
    with style():
        parts = [
            _data_part(evaluation, run_path, number)
            for number, evaluation in enumerate(run.evaluations, 1)
        ]
    html = render("run.html", _values(run, parts))
    return write_page(run_path, html, [drawing for part in parts for drawing in part.figures])


def _data_part(evaluation: Evaluation, run_path: Path, number: int) -> DataPart:
    """The parts of one data set; from the second on, anchors and figures carry its number."""
    parts = evaluation_parts(evaluation)
    sentences = plain_evaluation(evaluation) if parts else [_NOT_EVALUATED]
    if evaluation.fusion is not None:
        head = read_config(PretrainConfig, run_path / "config.json").head
        fused = fusion_parts(evaluation.fusion, head, evaluation)
        first = before_all(evaluation)
        sentences = sentences if parts else [*first, fused[0].lines[0], *sentences]
        parts += fused
    return DataPart(
        anchor=f"data-{number}",
        title=evaluation.data.spec or "unnamed images",
        facts=_facts(evaluation),
        sentences=sentences,
        parts=parts if number == 1 else [_numbered(part, number) for part in parts],
    )


def _numbered(part: PagePart, number: int) -> PagePart:
    def renamed(drawings: Sequence[Drawing]) -> list[Drawing]:
        return [replace(drawing, name=f"{drawing.name}-{number}") for drawing in drawings]

    return replace(
        part,
        anchor=f"{part.anchor}-{number}",
        drawings=renamed(part.drawings),
        wide=renamed(part.wide),
    )


def _facts(evaluation: Evaluation) -> list[str]:
    data: DataIdentity = evaluation.data
    results = [*evaluation.results.values(), *evaluation.differences, *evaluation.apart]
    seeds = max((len(result.seeds) for result in results), default=0)
    counts = {
        "training image": data.train_images,
        "test image": data.test_images,
        "number": len(results),
        "evaluation seed": seeds,
    }
    facts = [counted(count, noun) for noun, count in counts.items() if count]
    about = [f"{len(data.classes)} classes"] if data.classes else []
    about += [f"{counted(data.copies, 'test image')} copied from training"] if data.copies else []
    about += [f"--limit {data.limit}"] if data.limit else []
    about += [f"split {data.split}"] if data.split else []
    return [*facts[:2], *about, *facts[2:]]


def _values(run: EvaluatedRun, parts: list[DataPart]) -> dict[str, object]:
    """What the template asks for."""
    results = [result for e in run.evaluations for result in e.results.values()]
    device = run.environment.get("device_name", run.environment.get("device"))
    return {
        "name": run.name,
        "facts": [counted(len(parts), "data set"), *([device] if device else [])],
        "data": parts,
        "fusion": any(e.fusion is not None for e in run.evaluations),
        "definitions": definitions_of(results),
        "run": _run(run),
        "config": run.config,
        "config_title": "Configuration of pretraining" if run.pretrained else "What was measured",
    }


def _run(run: EvaluatedRun) -> dict[str, str]:
    """What the numbers depend on."""
    facts = {}
    for evaluation in run.evaluations:
        data, results = evaluation.data, evaluation.results.values()
        protocols = dict.fromkeys(f"{r.protocol} (version {r.version})" for r in results)
        facts[f"protocols on {data.words}"] = ", ".join(protocols)
        facts[f"fingerprint of {data.words}"] = data.fingerprint
    of = "pretraining " if run.pretrained else ""
    environment = {f"{of}{key}": words for key, words in run.environment.items()}
    return {key: words for key, words in (facts | environment).items() if words}
