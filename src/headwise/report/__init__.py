"""A comparison of heads, or the evaluation of one run, as one HTML page with its figures.

Everything here reads only the directory that `headwise compare`, `headwise evaluate` or `headwise
fusion` wrote.
"""

from pathlib import Path

from headwise.report.pages.comparison import write_report
from headwise.report.pages.fusion_seeds import write_seeds_report
from headwise.report.pages.rebuild import rebuild
from headwise.report.pages.run import write_run_report
from headwise.report.pages.study import study_text, write_study_report
from headwise.report.prose.comparison import plain_result
from headwise.report.prose.evaluation import plain_evaluation
from headwise.report.reading.evaluation import evaluation_of
from headwise.report.reading.summary import read_summary
from headwise.report.tables.comparison import text_table
from headwise.runs.directory import Run
from headwise.runs.sections import Section

__all__ = [
    "comparison_text",
    "evaluation_text",
    "rebuild",
    "study_text",
    "write_report",
    "write_run_report",
    "write_seeds_report",
    "write_study_report",
]


def comparison_text(out: str | Path) -> str:
    """A finished comparison for the terminal: its tables, then its result in words."""
    summary = read_summary(Path(out) / "summary.json")
    return f"On {summary.data}:\n\n{text_table(summary)}\n{' '.join(plain_result(summary))}"


def evaluation_text(run: str | Path, measured: Section) -> str:
    """What was just measured of a run, in words for the terminal."""
    words = " ".join(plain_evaluation(evaluation_of(Run(Path(run)), measured)))
    return f"On {measured.data.words}: {words}"
