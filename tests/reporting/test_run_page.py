import re
from html.parser import HTMLParser

import numpy as np
import pytest

from timebox.reporting import RunData, SplitPredictions, report_page

from .making import examples, facts, scored

SECTIONS = [
    "headline", "time", "training", "plan", "confusion", "classes", "calibration", "mistakes", "unsure", "augmentation",
    "data", "details",
]  # fmt: skip


class DatasetReader(HTMLParser):
    """Collects texts, ids and addresses, and sees that what is opened is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(given["id"])
        self.addresses += [given[name] for name in ("src", "href") if name in given]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_every_section_is_there_and_whole():
    page = DatasetReader(report_page(facts()))
    assert page.sections == SECTIONS
    assert page.open == []


def test_it_needs_nothing_from_outside():
    page = report_page(facts())
    assert all(address.startswith("data:") for address in DatasetReader(page).addresses)
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)


def test_what_it_says():
    text = DatasetReader(report_page(facts())).text
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


def test_names_are_escaped():
    page = report_page(facts())
    assert "<emu>" not in page
    assert "&lt;emu&gt;" in page


@pytest.mark.parametrize(
    "changed",
    [
        {"predictions": [], "examples": []},
        {"predictions": [scored("val", 5)]},
        {"metrics": []},
        {"metrics": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}]},
        {"summary": dict.fromkeys(facts().summary)},
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
        {"examples": examples(100), "predictions": [scored(num=1)]},
        {"examples": examples(16, 1)},
        {"examples": examples(16, 4)},
    ],
)
def test_a_run_that_lacks_something_still_has_a_page(changed):
    page = DatasetReader(report_page(facts(**changed)))
    assert page.open == []
    assert "headline" in page.sections


def test_with_a_perfect_score_there_is_no_confusion():
    labels = np.arange(30) % 3
    perfect = SplitPredictions("test", labels, np.eye(3, dtype=np.float32)[labels])
    assert "No image is misclassified." in report_page(facts(predictions=[perfect]))


def test_many_classes_and_images_stay_small():
    names = tuple(f"class number {k}" for k in range(200))
    many = facts(class_names=names, predictions=[scored(num=20_000, num_classes=200)], examples=examples(64) * 9)
    page = report_page(many)
    assert len(page) < 2_000_000
    assert "160 more classes, with higher recall" in page


def test_what_was_rolled_back_is_no_part_of_the_curve():
    lines: list[dict[str, object]] = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}]
    lines += [{"step": 1, "rolled_back": True}, {"step": 2, "loss": 2.0}]
    assert RunData("", {}, (), lines, (), ()).curve("loss") == [(1, 3.0), (2, 2.0)]
