from timebox.reporting.comparison_page import comparison_page, comparison_rows, differing_fields

from .factories import make_run_data


def test_rows_hold_the_values_of_each_run():
    one, other = (
        make_run_data(),
        make_run_data(name="pets-2", predictions=[], summary={"test_accuracy": 0.5, "budget_seconds": None}),
    )
    rows = {row[0]: row[1:] for row in comparison_rows([one, other])}
    assert rows["test accuracy"][1] == "50.00%"
    assert rows["test accuracy"][0].endswith(")")
    assert rows["budget"] == ("1m", "–")
    assert rows["val accuracy"][1] == "–"
    assert rows["recipe"] == ("auto", "auto")


def test_differing_recipe_fields():
    other = make_run_data(summary={"recipe": {"name": "auto", "width": 64, "flip": "none", "depth": 3}})
    assert differing_fields([make_run_data(), other]) == [("width", "32", "64"), ("depth", "–", "3")]
    assert ">None.</p>" in comparison_page([make_run_data(), make_run_data()])


def test_page_has_the_charts_and_escaped_names_of_each_run():
    page = comparison_page([make_run_data(name="<one>"), make_run_data(name="two")])
    assert "&lt;one&gt;" in page
    assert "<one>" not in page
    assert page.count("<svg") == 4
