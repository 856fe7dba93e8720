"""A comparison of heads, or the evaluation of one run, as one HTML page and as figures.

Everything here reads only the directory that `headwise compare` or `headwise evaluate` wrote.
"""

from headwise.report.pages.comparison import write_report
from headwise.report.pages.run import write_run_report
from headwise.report.prose.comparison import plain_result
from headwise.report.tables.comparison import text_table

__all__ = ["plain_result", "text_table", "write_report", "write_run_report"]
