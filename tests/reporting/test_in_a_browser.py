"""The pages in headless Chromium: wide and narrow, light and dark."""

from collections.abc import Iterator

import pytest

from browsers import WIDTHS, chromium, needs_chromium
from timebox.reporting import comparison_page, report_page, tuning_page

from .factories import make_examples, make_predictions, make_run_data
from .test_search_page import make_search

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = [
    pytest.mark.integration,
    needs_chromium,
]

# Words on the page that lie on more than one line. A word ends where a line may end: at a space, a hyphen or a slash.
BROKEN_WORDS = """
const broken = [], range = document.createRange();
const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  for (const word of walker.currentNode.data.matchAll(/[\\p{L}\\p{N}_.]+/gu)) {
    range.setStart(walker.currentNode, word.index);
    range.setEnd(walker.currentNode, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(r => r.top)).size > 1) broken.push(word[0]);
  }
}
return broken;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as driver:
        yield driver


def make_pages() -> dict[str, str]:
    long_names = tuple(f"a class with a rather long name, number {k}" for k in range(30))
    flowers = ("daisy", "dandelion", "rose", "snapdragons", "chrysanthemums")
    narrow = make_run_data(
        class_names=flowers, predictions=[make_predictions(num=400, num_classes=5)], examples=make_examples() * 3
    )
    many = make_run_data(
        class_names=long_names, predictions=[make_predictions(num=900, num_classes=30)], examples=make_examples(64) * 8
    )
    return {
        "report": report_page(make_run_data()),
        "flowers": report_page(narrow),
        "many": report_page(many),
        "comparison": comparison_page([make_run_data(name=f"a-run-with-a-long-name-{k}") for k in range(4)]),
        "search": tuning_page(*make_search()),
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["report", "flowers", "many", "comparison", "search"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_the_window_and_breaks_no_word(browser, tmp_path, name, width, scheme):
    path = tmp_path / "page.html"
    path.write_text(make_pages()[name], encoding="utf-8")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.get(path.as_uri())
    sections = browser.execute_script(
        "return [...document.querySelectorAll('section')].map(s => {const r = s.getBoundingClientRect();"
        " return [s.id, r.left, r.right, r.height]})"
    )
    assert len(sections) >= 3
    for identity, left, right, height in sections:
        assert 0 <= left < right <= width, identity
        assert height > 30, identity
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script(BROKEN_WORDS) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    channels = [int(part) for part in background.strip("rgb()").split(",")]
    assert (min(channels) > 200) if scheme == "light" else (max(channels) < 60)
    assert browser.execute_script(
        "return [...document.images].filter(i => i.hasAttribute('src') && i.loading !== 'lazy')"
        ".every(i => i.complete && i.naturalWidth > 0)"
    )
    assert browser.get_log("browser") == []
