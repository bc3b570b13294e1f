"""Sliders in a real browser: the number box beside one."""

import shutil
from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
PATIENCE = 60_000  # milliseconds


@pytest.fixture
def page(address) -> Iterator:
    """A visitor's page whose example has been looked at."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.wait_for_selector(".js-plotly-plot .bars", state="attached")
        yield page
        browser.close()


def box(page, label: str):
    """The number box of the slider with that label."""
    return page.get_by_label(f"number input for {label}", exact=True).locator("visible=true")


def film(page):
    """What waits until a slider is let go."""
    image = page.locator(".block:visible", has_text="Step by step: click one").last.locator("img").last
    image.wait_for(state="visible")
    return image


@pytest.mark.parametrize("keys", [["0", "Enter"], ["ArrowDown"]])
def test_a_number_that_is_typed_changes_what_waits_until_the_slider_is_let_go(page, keys):
    page.get_by_role("tab", name="Refinement", exact=True).click()
    shown, number = film(page), box(page, "alpha")
    before = shown.get_attribute("src")
    number.click()
    number.press("Control+a")
    for key in keys:
        number.press(key)
    sync_api.expect(shown).not_to_have_attribute("src", before, timeout=PATIENCE)
    assert number.evaluate("box => box === document.activeElement"), "it has not been left"


def test_a_number_box_that_is_emptied_raises_no_complaint(page):
    page.get_by_role("tab", name="Shape cues", exact=True).click()
    shown = page.locator(".block:visible", has_text="Self-information (Eq. 3)").last.locator("img").last
    shown.wait_for(state="visible")
    before, number = shown.get_attribute("src"), box(page, "R1")
    number.fill("")
    sync_api.expect(shown).not_to_have_attribute("src", before, timeout=PATIENCE)  # of the least radius
    number.press("Tab")
    sync_api.expect(number).to_have_value("1")
    assert not page.get_by_text("went wrong").count()
