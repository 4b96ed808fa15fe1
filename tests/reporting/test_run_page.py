import re
from html.parser import HTMLParser

import numpy as np
import pytest

from timebox.reporting import Example, RunData, SplitPredictions, report_page

from .factories import make_examples, make_predictions, make_run_data

SECTIONS = [
    "headline", "time", "training", "plan", "confusion", "classes", "calibration", "images", "thresholds", "mistakes",
    "unsure", "augmentation", "data", "words", "details",
]  # fmt: skip


class Page(HTMLParser):
    """Collects texts, section ids and URLs of a page, and checks that every tag is closed."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.urls: list[str] = []
        self.texts: list[str] = []
        self.num_scripts = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.num_scripts += tag == "script"
        if tag == "section":
            self.sections.append(values["id"])
        self.urls += [values[name] for name in ("src", "href") if name in values]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_page_has_every_section_and_closes_every_tag():
    page = Page(report_page(make_run_data()))
    assert page.sections == SECTIONS
    assert page.open == []


def test_page_is_self_contained():
    page = report_page(make_run_data())
    assert all(url.startswith("data:") for url in Page(page).urls)
    assert not re.search(r"https?://|@import|url\(|<script[^>]* src|<link", page)


def test_texts_of_the_page():
    text = Page(report_page(make_run_data())).text
    for words in (
        "accuracy on 200 test images 95% confidence interval",
        "accuracy on 90 validation images",
        "58s of 1m",
        "1,000 training images, 3 classes",
        "training 50.0 s",
        "not used 1.8 s",
        "300 steps, 12.5 epochs, 900 images/s.",
        "one network of width 32 on 32 px",
        "the loss became nan at step 9",
        "Balanced accuracy",
        "with the temperature 0.8, fitted on the validation images",
        "cat/empty.jpg empty file (0 bytes)",
        "timebox train pets --budget 1m",
        "pets: read as folder of class folders (images lie in the folders cat, dog, <emu>).",
        "1 unreadable file left out",
    ):
        assert words in text, words


def test_the_forecast_stands_beside_the_accuracy_that_was_reached():
    forecast = {"budget_seconds": 60.0, "expected": 0.8123, "low": 0.7, "high": 0.9}
    text = Page(report_page(make_run_data(summary={"forecast": forecast}))).text
    assert text.count("forecast 81%, 80% interval 70% to 90%") == 1
    for other in (None, {}, {"expected": 0.8}, {"expected": "a", "low": [], "high": None}):
        assert "80% interval" not in Page(report_page(make_run_data(summary={"forecast": other}))).text


def test_class_names_are_escaped():
    page = report_page(make_run_data())
    assert "<emu>" not in page
    assert "&lt;emu&gt;" in page


def test_hostile_names_are_escaped():
    attack = '"><script>alert(1)</script>'
    name = "<script>"
    example = Example("mistake", np.zeros((8, 8, 3), np.uint8), attack, 0, 1, 0.7)
    data = {"name": attack, "format": attack, "why": attack}
    summary = {"data": data, "plan": [attack], "command": attack, "phases": {attack: 1.0}, "recipe": {attack: attack}}
    page = report_page(make_run_data(name=attack, class_names=(name, attack, "a"), examples=[example], summary=summary))
    # Scripts are those of the page itself, and the names in them cannot end one.
    assert Page(page).num_scripts == Page(report_page(make_run_data())).num_scripts == 3
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert Page(page).open == []


def test_sentence_keeps_the_ellipsis_of_a_list_of_names():
    data = {"name": "flowers", "format": "folder of class folders", "why": "images lie in the folders daisy, rose, ..."}
    text = Page(report_page(make_run_data(summary={"data": data}))).text
    assert "flowers: read as folder of class folders (images lie in the folders daisy, rose, ...)." in text


def test_uncalibrated_run_has_one_reliability_diagram():
    page = report_page(make_run_data(summary={"temperature": None}))
    assert "The run is not calibrated: the run ended before it was scored." in page
    assert page.count('<div class="square">') == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"predictions": [], "examples": []},
        {"predictions": [make_predictions("val", 5)]},
        {"metrics": []},
        {"metrics": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}]},
        {"summary": dict.fromkeys(make_run_data().summary)},
        {"summary": {"phases": {}, "budget_seconds": None}},
        {
            "summary": {
                "phases": {"training": 1},
                "plan": 3,
                "bad_files": ["x"],
                "versions": [],
                "temperature": "warm",
            }
        },
        {"examples": make_examples(100), "predictions": [make_predictions(num=1)]},
        {"examples": make_examples(16, 1)},
        {"examples": make_examples(16, 4)},
    ],
)
def test_incomplete_run_has_a_page(changed):
    page = Page(report_page(make_run_data(**changed)))
    assert page.open == []
    assert "headline" in page.sections


def test_run_without_errors_says_so():
    labels = np.arange(30) % 3
    perfect = SplitPredictions("test", labels, np.eye(3, dtype=np.float32)[labels], labels.astype(str))
    assert "No image is misclassified." in report_page(make_run_data(predictions=[perfect]))


def test_page_with_many_classes_and_images_is_small():
    names = tuple(f"class number {k}" for k in range(200))
    many = make_run_data(
        class_names=names, predictions=[make_predictions(num=20_000, num_classes=200)], examples=make_examples(64) * 9
    )
    page = report_page(many)
    assert len(page) < 2_000_000
    assert "160 more classes, with higher recall" in page


def test_curve_leaves_out_steps_that_were_rolled_back():
    lines: list[dict[str, object]] = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}]
    lines += [{"step": 1, "rolled_back": True}, {"step": 2, "loss": 2.0}]
    assert RunData("", {}, (), lines, (), ()).curve("loss") == [(1, 3.0), (2, 2.0)]


def test_tables_of_very_many_classes_are_cut_and_the_page_says_so():
    names = [f"class {number}" for number in range(3000)]
    page = report_page(make_run_data(class_names=names, predictions=[make_predictions(num=9000, num_classes=3000)]))
    assert "The matrix of 3,000 classes is too large to draw." in page
    assert "Most frequent confusions" in page
    assert "1,000 more classes, with higher recall" in page or "1000 more classes, with higher recall" in page
    assert "further classes, with higher recall, are not shown: timebox evaluate --json has all." in page
    assert len(page) < 1_000_000


def test_unreadable_files_beyond_those_listed_are_counted():
    page = report_page(make_run_data(summary={"num_bad_files": 5_001}))
    assert "5,001 unreadable files left out" in page
    assert "5,000 further files are not listed: timebox inspect lists all." in page
