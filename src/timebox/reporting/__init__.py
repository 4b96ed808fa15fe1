"""HTML pages of runs, comparisons and searches, and their charts.

Pages are Jinja2 templates in ``templates``; charts are SVG made in Python. Both are made from plain values: no run
directory is read here.
"""

from timebox.reporting.comparison_page import comparison_page
from timebox.reporting.run_data import Example, RunData, SplitPredictions
from timebox.reporting.run_page import report_page
from timebox.reporting.search_page import settings_text, tuning_page

__all__ = ["Example", "RunData", "SplitPredictions", "comparison_page", "report_page", "settings_text", "tuning_page"]
