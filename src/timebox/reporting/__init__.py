"""Pages to look at, each one file: plain facts in, HTML out. Nothing here reads a run or knows of training."""

from timebox.reporting.comparison_page import comparison_page
from timebox.reporting.run_data import Example, RunFacts, Scored
from timebox.reporting.run_page import report_page
from timebox.reporting.search_page import settings_text, tuning_page

__all__ = ["Example", "RunFacts", "Scored", "comparison_page", "report_page", "settings_text", "tuning_page"]
