"""The page of `timebox serve` in Chromium: pictures, the camera, corrections, keyboard, narrow and dark."""

import ast
import base64
import shlex
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
    until(lambda: button.text == "Hide what decided")
    assert button.get_attribute("aria-pressed") is None
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


# Changes what the server seems to answer: `answers` maps a path to a function of the real fetch, or to none.
FETCH = """
const fetched = window.fetch, answers = {%s};
window.fetch = async (path, options) => {
  const name = path.split('?')[0];
  return answers[name] ? answers[name](() => fetched(path, options)) : fetched(path, options);
};
"""
SLOW = "async real => { await new Promise(done => setTimeout(done, 600)); return real(); }"
MANY_CLASSES = """async real => {
  const model = await (await real()).json();
  return Response.json({...model, classes: [...model.classes, ...Array.from({length: 9}, (_, n) => `other ${n}`)]});
}"""
FAILS_ONCE = """real => {
  if (window.hasFailed) return real();
  window.hasFailed = true;
  return Response.json({error: 'it did not work'}, {status: 500});
}"""


@pytest.fixture
def with_answers(browser: Any, address: str) -> Iterator[Callable[[str], Any]]:
    """Opens the page with other answers; see FETCH."""
    scripts: list[str] = []

    def open_page(answers: str) -> Any:
        added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": FETCH % answers})
        scripts.append(added["identifier"])
        browser.get(address)
        return browser

    yield open_page
    for script in scripts:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})
    browser.get("about:blank")
    browser.get_log("browser")


def button_of(page: Any, text_of_it: str) -> Any:
    (button,) = (one for one in page.find_elements("css selector", ".correct button") if one.text == text_of_it)
    return button


def saved_files(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.rglob("*") if path.is_file())


def test_a_correction_is_undone_step_by_step(page: Any, folder: Path) -> None:
    before = saved_files(folder)
    add(page, "a.png", picture=encoded(1, seed=78))
    for label in ("red", "blue"):
        button_of(page, label).click()
        until(lambda label=label: f"Saved as {label}" in text(page, ".note"))  # type: ignore[misc]
    assert saved_files(folder) == sorted([*before, "blue"])
    button_of(page, "Undo").click()
    until(lambda: text(page, ".note") == "Saved as red again")
    assert saved_files(folder) == sorted([*before, "red"])
    assert button_of(page, "red").get_attribute("aria-pressed") == "true"
    assert button_of(page, "blue").get_attribute("aria-pressed") is None
    button_of(page, "Undo").click()
    until(lambda: text(page, ".note") == "No longer saved")
    assert saved_files(folder) == before
    assert not page.find_element("css selector", ".undo").is_displayed()
    assert page.switch_to.active_element.text == "red"  # the focus stays with the correction


def test_a_list_of_classes_saves_by_its_button_alone(with_answers: Callable[[str], Any], folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page, before = with_answers(f"'/model': {MANY_CLASSES}"), saved_files(folder)
    add(page, "a.png", picture=encoded(1, seed=79))
    chosen = page.find_element("css selector", ".correct select")
    assert not button_of(page, "Save").is_enabled()
    for _ in range(3):
        chosen.send_keys(Keys.ARROW_DOWN)
    assert button_of(page, "Save").is_enabled()
    time.sleep(0.3)
    assert (saved_files(folder), text(page, ".note")) == (before, "")
    label = chosen.get_attribute("value")
    button_of(page, "Save").click()
    until(lambda: f"Saved as {label}" in text(page, ".note"))
    assert saved_files(folder) == sorted([*before, label])
    button_of(page, "Undo").click()
    until(lambda: saved_files(folder) == before)


def test_controls_are_disabled_while_their_request_runs(with_answers: Callable[[str], Any]) -> None:
    page = with_answers(f"'/feedback': {SLOW}, '/feedback/undo': {SLOW}, '/explain': {SLOW}")
    add(page, "a.png", picture=encoded(1, seed=80))
    enabled = lambda: [one.text for one in page.find_elements("css selector", ".correct button") if one.is_enabled()]  # noqa: E731
    button_of(page, "red").click()
    assert enabled() == []
    until(lambda: "Saved as red" in text(page, ".note"))
    assert enabled() == ["red", "blue", "Undo"]
    assert page.switch_to.active_element.text == "red"
    explain = page.find_element("css selector", ".explain")
    explain.click()
    assert not explain.is_enabled()
    until(explain.is_enabled)
    button_of(page, "Undo").click()
    assert enabled() == []
    until(lambda: text(page, ".note") == "No longer saved")


def test_an_old_failure_does_not_stay(with_answers: Callable[[str], Any]) -> None:
    page = with_answers(f"'/explain': {FAILS_ONCE}")
    add(page, "a.png")
    explain = page.find_element("css selector", ".explain")
    explain.click()
    until(lambda: text(page, ".note") == "it did not work")
    explain.click()
    until(lambda: page.find_element("css selector", ".heat").is_displayed())
    assert text(page, ".note") == ""


def test_pictures_that_come_before_the_model_wait_for_it(with_answers: Callable[[str], Any]) -> None:
    page = with_answers(f"'/model': {SLOW}")
    assert text(page, "#facts") == "…"
    add(page, "a.png", "b.png")
    until(lambda: text(page, "#progress") == "2 of 2 done")
    assert text(page, ".card .bars .label") == "green"


def test_without_a_model_a_drop_leaves_the_page_as_it_is(with_answers: Callable[[str], Any]) -> None:
    page = with_answers(f"'/model': {FAILS_ONCE}")
    until(lambda: text(page, "#problem") == "it did not work")
    page.execute_script(DROP, base64.b64encode(encoded()).decode(), ["a.png"], "drop")
    time.sleep(0.2)
    assert number_of(page, ".card") == 0
    assert text(page, "#problem") == "it did not work"


def test_a_double_click_opens_one_camera_and_takes_one_picture(page: Any) -> None:
    page.execute_script("""
      window.numOpened = 0;
      const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = options => { window.numOpened += 1; return open(options); };
      for (let n = 0; n < 2; n += 1) document.getElementById('open-camera').click();
    """)
    until(lambda: page.find_element("id", "shoot").is_displayed())
    until(lambda: page.execute_script("return document.getElementById('video').videoWidth > 0"))
    assert page.execute_script("return window.numOpened") == 1
    page.execute_script("for (let n = 0; n < 2; n += 1) document.getElementById('shoot').click();")
    until(lambda: number_of(page, ".card .bars li") == 3)
    time.sleep(0.3)
    assert number_of(page, ".card") == 1
    assert page.find_element("id", "shoot").is_enabled()
    page.find_element("id", "close-camera").click()
    assert page.find_element("id", "open-camera").is_enabled()


def test_examples_quote_the_token(browser: Any, trained: Run) -> None:
    token = """it's "x" & $y\\z"""
    with serving(trained, "--feedback", "none", "--token", token) as (_, address):
        browser.get(address)
        until(lambda: "24 test images right" in text(browser, "#facts"))
        words = shlex.split(text(browser, "#curl").splitlines()[0])
        assert words[1:3] == ["-H", f"Authorization: Bearer {token}"]
        (line,) = (line for line in text(browser, "#python").splitlines() if line.startswith("headers = "))
        assert ast.literal_eval(line.removeprefix("headers = ")) == {"Authorization": f"Bearer {token}"}
        add(browser, "a.png")
        assert text(browser, ".card .bars .label") == "green"
        browser.get("about:blank")


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
        page.find_element("css selector", ".correct button").click()
        until(lambda: page.find_element("css selector", ".undo").is_displayed())
        page.find_element("id", "open-camera").click()
        until(lambda: page.find_element("id", "shoot").is_displayed())
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        violations = axe_core.Axe().run(page)["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []
    finally:
        set_width(page, WIDTHS[0])
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
