"""`report.html` of a study: its claims, figures and tables as one page that needs nothing else."""

from pathlib import Path

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.files import write_text
from headwise.report.pages.definitions import Definition, definition
from headwise.report.pages.rendering import data_address, render, write_page
from headwise.report.plots.drawing import style
from headwise.report.plots.study import draw
from headwise.report.prose.study import answers_in_words, opening, study_words
from headwise.report.reading.study import StudyFindings, read_findings
from headwise.report.tables.measures import protocol_of
from headwise.report.tables.study import arms_tables, asked_measures, table_files, tested_table
from headwise.report.words import counted, duration


def write_study_report(folder: str | Path) -> Path:
    """Write `report.html`, `figures/` and `tables/` beside the findings.json in `folder`; the path
    of the page. Raises `UserError` if there are no findings, or if the file is broken."""
    folder = Path(folder)
    findings = read_findings(folder)
    with style():
        drawings = [draw(findings, figure) for figure in findings.figures]
    values = {
        "study": findings,
        "facts": _facts(findings),
        "sentences": opening(findings),
        "claims": [(claim, tested_table(claim.tested)) for claim in findings.claims],
        "drawings": drawings,
        "pictures": [
            (picture, data_address(folder / "figures" / f"{picture.name}.png"))
            for picture in findings.pictures
        ],
        "arms": arms_tables(findings),
        "run": _run(findings),
        "runs": [(arm.name, arm.runs) for arm in findings.arms if arm.runs],
        "definitions": _definitions(findings),
        "fewest": FEWEST_SEEDS,
    }
    html = render("study.html", values)
    for name, text in table_files(findings).items():
        write_text(folder / "tables" / name, text)
    return write_page(folder, html, drawings)


def study_text(folder: str | Path) -> str:
    """What a study found so far, for the terminal."""
    return study_words(read_findings(Path(folder)))


def _facts(findings: StudyFindings) -> list[str]:
    arms, seeds = counted(len(findings.arms), "arm"), counted(findings.seeds, "seed")
    return [arms, seeds, *filter(None, [answers_in_words(findings), findings.machine])]


def _run(findings: StudyFindings) -> dict[str, str]:
    """What the numbers depend on."""
    seeds = sorted({seed for arm in findings.arms for seed in arm.seeds})
    facts = {
        "command": findings.command,
        "scale": findings.scale,
        "seeds": ", ".join(map(str, seeds)),
        "commit": findings.commit,
        "machine": findings.machine,
        "training, all runs": duration(3600 * findings.hours) if findings.hours else "",
    }
    return {name: words for name, words in facts.items() if words}


def _definitions(findings: StudyFindings) -> list[Definition]:
    """Of the protocols whose numbers are on the page."""
    found = dict(filter(None, map(protocol_of, asked_measures(findings))))
    return [definition(name, description) for name, description in found.items()]
