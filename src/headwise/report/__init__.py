"""A comparison of heads, or the evaluation of one run, as one HTML page with its figures.

Everything here reads only the directory that `headwise compare`, `headwise evaluate` or `headwise
fusion` wrote.
"""

from pathlib import Path

from headwise.report.pages.comparison import write_report
from headwise.report.pages.rebuild import rebuild
from headwise.report.pages.run import write_run_report
from headwise.report.prose.comparison import plain_result
from headwise.report.prose.evaluation import plain_evaluation
from headwise.report.reading.evaluation import read_run
from headwise.report.reading.summary import read_summary
from headwise.report.tables.comparison import text_table

__all__ = ["comparison_text", "rebuild", "run_text", "write_report", "write_run_report"]


def comparison_text(out: str | Path) -> str:
    """A finished comparison for the terminal: its tables, then its result in words."""
    summary = read_summary(Path(out) / "summary.json")
    return f"{text_table(summary)}\n{' '.join(plain_result(summary))}"


def run_text(run: str | Path) -> str:
    """An evaluated run in words for the terminal: a paragraph for each data set."""
    evaluations = read_run(Path(run)).evaluations
    paragraphs = [" ".join(plain_evaluation(evaluation)) for evaluation in evaluations]
    if len(paragraphs) == 1:
        return paragraphs[0]
    named = zip(evaluations, paragraphs, strict=True)
    return "\n".join(f"On {evaluation.data.spec}: {words}" for evaluation, words in named)
