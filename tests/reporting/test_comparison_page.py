from timebox.reporting.comparison_page import comparison_page, comparison_rows, differing_fields

from .making import facts


def test_rows_are_what_runs_have():
    one, other = facts(), facts(name="pets-2", predictions=[], summary={"test_accuracy": 0.5, "budget_seconds": None})
    rows = {row[0]: row[1:] for row in comparison_rows([one, other])}
    assert rows["test accuracy"][1] == "50.00%"
    assert rows["test accuracy"][0].endswith(")")
    assert rows["budget"] == ("1m", "–")
    assert rows["val accuracy"][1] == "–"
    assert rows["recipe"] == ("auto", "auto")


def test_fields_in_which_recipes_differ():
    other = facts(summary={"recipe": {"name": "auto", "width": 64, "flip": "none", "depth": 3}})
    assert differing_fields([facts(), other]) == [("width", "32", "64"), ("depth", "–", "3")]
    assert ">None.</p>" in comparison_page([facts(), facts()])


def test_the_page_has_a_column_for_each_run():
    page = comparison_page([facts(name="<one>"), facts(name="two")])
    assert "&lt;one&gt;" in page
    assert "<one>" not in page
    assert page.count("<svg") == 4
