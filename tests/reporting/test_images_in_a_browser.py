"""The report's browser of images, its thresholds and the clickable confusion matrix in headless Chromium."""

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browsers import DARK, WIDTHS, chromium, needs_chromium, set_width
from timebox.reporting import SplitPredictions, report_page
from timebox.run.results.thumbnails import Thumbnails, encode_thumbnail

from .factories import make_predictions, make_run_data

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

pytestmark = [pytest.mark.integration, needs_chromium]

NAMES = ("cat", "dog", "<emu>")
# cat taken for dog twice, <emu> for cat once; the rest is right. The names need escapes in addresses and in CSV.
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 0])
PROBABILITIES = np.array(
    [
        [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.7, 0.2, 0.1], [0.1, 0.9, 0.0], [0.3, 0.5, 0.2], [0.5, 0.1, 0.4],
        [0.0, 0.05, 0.95], [0.98, 0.01, 0.01],
    ],
    np.float32,
)  # fmt: skip
FILES = ["a b#1.png", 'say "hi", you.png', "c.png", "d.png", "e.png", "f%20.png", "=g.png", "ü.png"]
WAIT = 20
LOADED_WIDTH = "return arguments[0].complete && arguments[0].naturalWidth"
CLIPBOARD = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos with # and %")
    for k, name in enumerate(FILES[:-1]):
        Image.new("RGB", (400 + k, 300), (20 * k, 90, 60)).save(folder / name)
    return folder


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:
    images = [encode_thumbnail(np.full((60, 80, 3), 30 * k, np.uint8), 80) for k in range(8)]
    run = make_run_data(
        class_names=NAMES,
        predictions=[SplitPredictions("test", LABELS, PROBABILITIES, np.array(FILES))],
        summary={"temperature": 1.0},
        data=str(folder),
        thumbnails=Thumbnails("test", np.arange(8), tuple(images)),
    )
    path = folder / "report.html"
    path.write_text(report_page(run), encoding="utf-8")
    set_width(browser, WIDTHS[0])
    browser.get(path.as_uri())
    yield browser
    # The last file does not exist any more: its thumbnail is shown instead.
    assert [line for line in browser.get_log("browser") if "ERR_FILE_NOT_FOUND" not in line["message"]] == []


def find(page: Any, selector: str) -> Any:
    return page.find_element(By.CSS_SELECTOR, selector)


def tiles(page: Any) -> list[str]:
    """The names of the files that are shown, in order."""
    return [tile.get_attribute("title") for tile in page.find_elements(By.CSS_SELECTOR, ".tile")]


def choose(page: Any, control: str, value: str) -> None:
    Select(find(page, f"#{control}")).select_by_value(value)


def until(is_true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not is_true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def press(page: Any, key: str) -> None:
    page.switch_to.active_element.send_keys(key)


def download(page: Any, folder: Path, name: str) -> list[list[str]]:
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    find(page, "#export-images").click()
    until((folder / name).is_file)
    return list(csv.reader(io.StringIO((folder / name).read_text(encoding="utf-8"))))


def test_errors_are_shown_first_the_surest_first(page: Any) -> None:
    assert tiles(page) == [FILES[0], FILES[1], FILES[5]]
    assert find(page, "#image-count").text == "3 of 8 images"
    assert find(page, ".tile").text.split("\n") == ["dog 80%", "true: cat"]


def test_a_click_on_a_cell_shows_its_images(page: Any) -> None:
    find(page, 'rect[data-label="0"][data-predicted="0"]').click()
    assert set(tiles(page)) == {FILES[2], FILES[7]}
    assert Select(find(page, "#true-class")).first_selected_option.text == "cat"
    assert page.switch_to.active_element.get_attribute("title") == tiles(page)[0]
    find(page, 'button.link[data-label="0"][data-predicted="1"]').click()
    assert tiles(page) == [FILES[0], FILES[1]]
    find(page, "#reset-filters").click()
    assert len(tiles(page)) == 3


def test_the_cells_are_reached_by_the_keyboard(page: Any) -> None:
    cells = page.find_elements(By.CSS_SELECTOR, '.matrix rect[tabindex="0"]')
    assert [cell.get_attribute("aria-label") for cell in cells] == ["cat predicted as cat: 2"]
    page.execute_script("arguments[0].focus()", cells[0])
    for key in (Keys.ARROW_DOWN, Keys.ARROW_UP):
        press(page, key)
    press(page, Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.get_attribute("aria-label") == "cat predicted as dog: 2"
    press(page, Keys.ENTER)
    assert tiles(page) == [FILES[0], FILES[1]]


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("most-confident", FILES[7]),
        ("least-confident", FILES[4]),
        ("highest-loss", FILES[0]),
        ("lowest-loss", FILES[7]),
        ("file", "=g.png"),
    ],
)
def test_the_order(page: Any, order: str, first: str) -> None:
    choose(page, "show", "all")
    choose(page, "sort", order)
    assert len(tiles(page)) == 8
    if order == "least-confident":
        assert tiles(page)[0] in (FILES[4], FILES[5])  # both 50 %
    else:
        assert tiles(page)[0] == first


def test_filters_can_be_combined_and_may_leave_nothing(page: Any) -> None:
    choose(page, "show", "correct")
    choose(page, "true-class", "1")
    assert set(tiles(page)) == {FILES[3], FILES[4]}
    find(page, "#file-filter").send_keys("D.p")
    assert tiles(page) == [FILES[3]]
    choose(page, "predicted-class", "2")
    assert tiles(page) == []
    assert find(page, "#image-count").text == "0 of 8 images"
    assert not find(page, "#export-images").is_enabled()


def test_an_image_is_enlarged_from_its_file(page: Any, folder: Path) -> None:
    choose(page, "show", "all")
    choose(page, "sort", "file")
    wide = {}
    for tile in page.find_elements(By.CSS_SELECTOR, ".tile"):
        name = tile.get_attribute("title")
        tile.click()
        image = find(page, "#detail-image")
        until(
            lambda image=image: page.execute_script("return arguments[0].complete && arguments[0].naturalWidth", image)
        )
        wide[name] = page.execute_script("return arguments[0].naturalWidth", image)
        assert find(page, "#detail-path").get_attribute("value") == str(folder / name)
        press(page, Keys.ESCAPE)
        assert page.switch_to.active_element == tile
    assert wide == {name: 400 + k if k < 7 else 80 for k, name in enumerate(FILES)}


def test_what_is_said_of_an_enlarged_image(page: Any) -> None:
    find(page, ".tile").click()
    assert find(page, "#detail-classes").text == "predicted dog, true class cat"
    top = [line.text.split("\n") for line in page.find_elements(By.CSS_SELECTOR, "#detail-top li")]
    assert top == [["dog", "80.0%"], ["cat", "10.0%"], ["<emu>", "10.0%"]]
    assert find(page, "#detail-loss").text == "loss 2.30"
    press(page, Keys.ARROW_RIGHT)
    assert find(page, "#detail-position").text == "2 of 3"
    find(page, "#next-image").click()
    assert find(page, "#detail-title").text == FILES[5]
    assert not find(page, "#next-image").is_enabled()
    press(page, Keys.ARROW_RIGHT)
    assert find(page, "#detail-position").text == "3 of 3"
    press(page, Keys.ESCAPE)
    assert not find(page, "#image-detail").is_displayed()
    assert page.switch_to.active_element.get_attribute("title") == FILES[5]


def test_the_path_is_copied(page: Any, folder: Path) -> None:
    page.execute_cdp_cmd("Browser.grantPermissions", CLIPBOARD)
    find(page, ".tile").click()
    find(page, "#copy-path").click()
    until(lambda: find(page, "#copy-path").text == "Copied")
    assert page.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == str(folder / FILES[0])
    press(page, Keys.ARROW_RIGHT)
    press(page, "c")
    until(lambda: find(page, "#copy-path").text == "Copied")
    assert page.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == str(folder / FILES[1])


def test_the_keyboard_moves_among_the_images(page: Any) -> None:
    choose(page, "show", "all")
    assert len(page.find_elements(By.CSS_SELECTOR, '.tile[tabindex="0"]')) == 1
    page.execute_script("arguments[0].focus()", find(page, ".tile"))
    names = tiles(page)
    for key, name in (
        (Keys.ARROW_RIGHT, names[1]),
        (Keys.END, names[7]),
        (Keys.ARROW_LEFT, names[6]),
        (Keys.HOME, names[0]),
    ):
        press(page, key)
        assert page.switch_to.active_element.get_attribute("title") == name
    press(page, Keys.ENTER)
    assert find(page, "#detail-title").text == names[0]


def test_the_list_is_exported(page: Any, folder: Path, tmp_path: Path) -> None:
    head, *rows = download(page, tmp_path, "mistakes.csv")
    assert head[:5] == ["file", "label", "predicted", "probability", "loss"]
    assert head[5:] == ["predicted_2", "probability_2", "predicted_3", "probability_3"]
    assert [row[:3] for row in rows] == [
        [str(folder / FILES[0]), "cat", "dog"],
        [str(folder / FILES[1]), "cat", "dog"],
        [str(folder / FILES[5]), "<emu>", "cat"],
    ]
    assert [float(rows[0][k]) for k in (3, 4, 6)] == pytest.approx([0.8, 2.302585, 0.1], abs=1e-5)
    choose(page, "show", "all")
    assert len(download(page, tmp_path, "images.csv")) == 9


def test_a_formula_in_a_name_is_no_formula_in_the_list(browser: Any, tmp_path: Path) -> None:
    names = ["=1+1", "-3.5", "'quoted", "plain; or not"]
    predictions = SplitPredictions("test", np.arange(4), np.eye(4, dtype=np.float32)[::-1].copy(), np.array(names))
    path = tmp_path / "report.html"
    path.write_text(report_page(make_run_data(class_names=names, predictions=[predictions])), encoding="utf-8")
    browser.get(path.as_uri())
    files = {row[0] for row in download(browser, tmp_path, "mistakes.csv")[1:]}
    assert files == {"'=1+1", "-3.5", "''quoted", "plain; or not"}


def thresholds(page: Any) -> list[list[str]]:
    rows = page.find_elements(By.CSS_SELECTOR, "#threshold-rows tr")
    return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]


def set_precision(page: Any, per_cent: str) -> None:
    control = find(page, "#wanted-precision")
    control.clear()
    control.send_keys(per_cent)


def test_thresholds_reach_the_precision_that_is_wanted(page: Any) -> None:
    # dog is predicted at just below 90 % (right), 80 % (wrong), 60 % (wrong) and 50 % (right).
    assert thresholds(page) == [
        ["cat", "0.6", "2 of 3", "100.0%", "50.0%"],
        ["dog", "0.89", "1 of 4", "100.0%", "50.0%"],
        ["<emu>", "0", "1 of 1", "100.0%", "50.0%"],
    ]
    assert find(page, "#threshold-total").text == "50.0% of the images accepted, 100.0% of them right"
    set_precision(page, "50")
    assert thresholds(page)[1] == ["dog", "0", "4 of 4", "50.0%", "100.0%"]
    set_precision(page, "95")
    choose(page, "show", "below")
    assert set(tiles(page)) == {FILES[0], FILES[1], FILES[4], FILES[5]}


def test_a_threshold_that_cannot_be_reached_is_said_so(browser: Any, tmp_path: Path) -> None:
    predictions = SplitPredictions(
        "test", np.array([1, 1]), np.array([[0.9, 0.1]] * 2, np.float32), np.array(["a", "b"])
    )
    path = tmp_path / "report.html"
    run = make_run_data(class_names=("cat", "dog"), predictions=[predictions], examples=[])
    path.write_text(report_page(run), encoding="utf-8")
    browser.get(path.as_uri())
    assert thresholds(browser) == [
        ["cat", "not reached", "0 of 2", "–", "–"],
        ["dog", "never predicted", "0 of 0", "–", "0.0%"],
    ]
    browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    find(browser, "#copy-thresholds").click()
    until(lambda: find(browser, "#copy-thresholds").text == "Copied")
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert json.loads(copied) == {"cat": 1.01, "dog": 1.01}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 10,000 images of 1,000 classes, all with thumbnails."""
    predictions = make_predictions(num=10_000, num_classes=1000)
    rng = np.random.default_rng(0)
    images = [encode_thumbnail(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 64) for _ in range(100)]
    run = make_run_data(
        class_names=[f"class {k}" for k in range(1000)],
        predictions=[predictions],
        thumbnails=Thumbnails("test", np.arange(10_000), tuple(images[k % 100] for k in range(10_000))),
    )
    path = tmp_path_factory.mktemp("large") / "report.html"
    path.write_text(report_page(run), encoding="utf-8")
    return path


def test_ten_thousand_images_of_a_thousand_classes(browser: Any, large: Path) -> None:
    set_width(browser, WIDTHS[0])
    start = time.monotonic()
    browser.get(large.as_uri())
    until(lambda: tiles(browser))
    assert time.monotonic() - start < 15
    start = time.monotonic()
    choose(browser, "show", "all")
    assert find(browser, "#image-count").text == "10,000 of 10,000 images"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".tile")) < 1000
    choose(browser, "true-class", "999")
    assert 0 < len(tiles(browser)) < 50
    assert len(thresholds_rows(browser)) == 1000
    assert time.monotonic() - start < 10


def thresholds_rows(page: Any) -> list[Any]:
    rows: list[Any] = page.find_elements(By.CSS_SELECTOR, "#threshold-rows tr")
    return rows


def test_more_images_follow_as_the_page_is_scrolled(browser: Any, large: Path) -> None:
    browser.get(large.as_uri())
    choose(browser, "show", "all")
    before = len(browser.find_elements(By.CSS_SELECTOR, ".tile"))
    browser.execute_script("document.getElementById('more-images').scrollIntoView()")
    until(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".tile")) > before)
    first = find(browser, ".tile")
    browser.execute_script("arguments[0].focus()", first)
    press(browser, Keys.END)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".tile")) == 10_000


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_width_and_names_everything(page: Any, width: int, scheme: str) -> None:
    axe_core = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    set_width(page, width)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK if scheme == "dark" else {"features": []})
    try:
        for is_enlarged in (False, True):
            if is_enlarged:
                find(page, ".tile").click()
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
            violations = axe_core.Axe().run(page)["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
