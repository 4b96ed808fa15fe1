"""Pages to look at, each one file: plain facts in, HTML out. Nothing here reads a run or knows of training."""

from timebox.reporting.comparison import comparison_page
from timebox.reporting.facts import Example, RunFacts, Scored
from timebox.reporting.page import report_page
from timebox.reporting.tuning import settings_text, tuning_page

__all__ = ["Example", "RunFacts", "Scored", "comparison_page", "report_page", "settings_text", "tuning_page"]
