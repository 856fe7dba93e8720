"""A comparison of heads as one HTML page, as figures, and as a table for the terminal.

Everything here reads only the directory that `headwise compare` wrote.
"""

from headwise.report.page import write_report
from headwise.report.table import text_table
from headwise.report.verdict import plain_result

__all__ = ["plain_result", "text_table", "write_report"]
