"""The page of `timebox serve` in Chromium: pictures, the camera, corrections, keyboard, narrow and dark."""

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browsers import DARK, WIDTHS, chromium, needs_chromium, set_width
from timebox.run import Run

from .conftest import encoded
from .test_server import serving

pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = [pytest.mark.integration, needs_chromium]

WAIT = 20
DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), character => character.charCodeAt(0));
const data = new DataTransfer();
for (const name of arguments[1]) data.items.add(new File([bytes], name, {type: 'image/png'}));
const event = arguments[2] === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
  : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
document.getElementById('drop').dispatchEvent(event);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrected")


@pytest.fixture(scope="module")
def address(trained: Run, folder: Path) -> Iterator[str]:
    with serving(trained, "--feedback", str(folder)) as (_, address):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    browser.get(address)
    until(lambda: "classes" in text(browser, "#facts"))
    yield browser
    # A picture that cannot be read is answered with 415, which the browser notes.
    assert [line for line in browser.get_log("browser") if "415" not in line["message"]] == []


def until(is_true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not is_true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def text(page: Any, selector: str) -> str:
    return str(page.execute_script("return document.querySelector(arguments[0]).textContent", selector))


def number_of(page: Any, selector: str) -> int:
    return int(page.execute_script("return document.querySelectorAll(arguments[0]).length", selector))


def add(page: Any, *names: str, how: str = "drop", picture: bytes | None = None) -> None:
    """Drop or paste pictures, and wait for their predictions."""
    before = number_of(page, ".card")
    page.execute_script(DROP, base64.b64encode(picture or encoded(1)).decode(), names, how)
    until(lambda: number_of(page, ".card") == before + len(names))
    until(lambda: "waiting" not in text(page, "#cards"))


def test_dropped_pasted_and_chosen_pictures_are_predicted(page: Any, tmp_path: Path, trained: Run) -> None:
    assert text(page, "#name") == trained.path.name
    assert "24 test images right" in text(page, "#facts")
    add(page, "a.png", "b.png")
    add(page, "pasted.png", how="paste")
    (tmp_path / "chosen.png").write_bytes(encoded(2))
    page.find_element("id", "files").send_keys(str(tmp_path / "chosen.png"))
    until(lambda: text(page, "#progress") == "4 of 4 done")
    assert text(page, ".card .file") == "chosen.png"
    assert text(page, ".card .bars .label") == "blue"
    labels = page.execute_script(
        "return [...document.querySelectorAll('.bars li:first-child .label')].map(e => e.textContent)"
    )
    assert labels == ["blue", "green", "green", "green"]
    page.find_element("id", "clear").click()
    assert number_of(page, ".card") == 0


def test_what_is_no_picture_is_said_in_its_place(page: Any) -> None:
    add(page, "notes.txt", picture=b"only text")
    assert text(page, ".card .state") == "the picture cannot be read: not an image that can be read here"
    add(page, "a.png")
    assert text(page, ".card .bars .label") == "green"


def test_the_camera(page: Any) -> None:
    page.find_element("id", "open-camera").click()
    until(lambda: page.execute_script("return document.getElementById('video').videoWidth > 0"))
    page.find_element("id", "shoot").click()
    until(lambda: number_of(page, ".card .bars li") == 3)
    page.find_element("id", "close-camera").click()
    assert page.execute_script("return document.getElementById('camera').hidden")
    assert text(page, ".card .file").startswith("camera ")


def test_what_decided_is_laid_over_the_picture(page: Any) -> None:
    add(page, "a.png")
    button = page.find_element("css selector", ".explain")
    button.click()
    until(lambda: button.get_attribute("aria-pressed") == "true")
    heat = page.find_element("css selector", ".heat")
    until(lambda: heat.is_displayed() and page.execute_script("return arguments[0].naturalWidth", heat) == 8)
    assert heat.rect == page.find_element("css selector", ".picture").rect
    button.click()
    assert not heat.is_displayed()


def test_a_correction_is_kept(page: Any, folder: Path) -> None:
    picture = encoded(1, seed=77)
    add(page, "a.png", picture=picture)
    (button,) = (one for one in page.find_elements("css selector", ".correct button") if one.text == "blue")
    button.click()
    until(lambda: "Saved as blue" in text(page, ".note"))
    (saved,) = (folder / "blue").iterdir()
    assert saved.read_bytes() == picture
    assert button.get_attribute("aria-pressed") == "true"


def test_the_keyboard_reaches_everything(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    add(page, "a.png")
    page.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = []
    for _ in range(12):
        page.switch_to.active_element.send_keys(Keys.TAB)
        element = page.switch_to.active_element
        reached.append(element.get_attribute("id") or element.text)
        if reached[-1] == "clear":
            element.send_keys(Keys.TAB)
            page.switch_to.active_element.send_keys(Keys.ENTER)
            until(lambda: page.find_element("css selector", ".heat").is_displayed())
            return
    raise AssertionError(f"reached {reached}")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_width_and_names_everything(page: Any, width: int, scheme: str) -> None:
    axe_core = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    set_width(page, width)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK if scheme == "dark" else {"features": []})
    try:
        add(page, "a.png", f"{'long-name-' * 12}.png")
        page.find_element("css selector", ".explain").click()
        until(lambda: page.find_element("css selector", ".heat").is_displayed())
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        violations = axe_core.Axe().run(page)["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []
    finally:
        set_width(page, WIDTHS[0])
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
