"""A comparison of heads, or the evaluation of one run, as one HTML page and as figures.

Everything here reads only the directory that `headwise compare` or `headwise evaluate` wrote.
"""

from headwise.report.evaluation_page import write_run_report
from headwise.report.page import write_report
from headwise.report.table import text_table
from headwise.report.verdict import plain_result

__all__ = ["plain_result", "text_table", "write_report", "write_run_report"]
