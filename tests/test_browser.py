"""The page in a real browser: a visitor uploads a photograph, looks, and moves the sliders."""

import shutil
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]
FLAGS = [
    "--no-sandbox",  # containers run as root
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
]
CAT = Path(__file__).parent.parent / "analysis" / "examples" / "chelsea.jpg"
PICTURES = ("Photograph | mask", "Pseudo mask (SPR)", "Self-information")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    """A fresh visitor's page; it fails the test on an error in the console or a request that leaves the machine."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if leaves(request.url, address) else None)
    page.goto(address)
    yield page
    page.close()
    assert not complaints


def leaves(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def upload(page, path: Path) -> None:
    page.wait_for_selector("input[type=file]", state="attached", timeout=60_000)
    page.set_input_files("input[type=file]", str(path))
    page.wait_for_selector(".legend .entry", timeout=60_000)
    page.wait_for_selector(".js-plotly-plot .bars", state="attached", timeout=60_000)


def picture(page, label: str):
    """The last image of the block with that label."""
    return page.locator(".block", has=page.get_by_text(label, exact=True)).last.locator("img").last


def test_an_uploaded_photograph_gets_its_pictures(page):
    upload(page, CAT)
    for label in PICTURES:
        image = picture(page, label)
        image.wait_for(state="visible", timeout=30_000)
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 451, label
    assert page.locator(".legend .entry", has_text="background").count() == 2


def test_a_slider_changes_the_pseudo_mask(page):
    upload(page, CAT)
    image = picture(page, "Pseudo mask (SPR)")
    before = image.get_attribute("src")
    slider = page.get_by_label("number input for T", exact=True)
    slider.fill("0")
    slider.press("Enter")
    changed = "([image, before]) => image.src !== before"
    page.wait_for_function(changed, arg=[image.element_handle(), before], timeout=30_000)
    assert image.get_attribute("src") != before


def test_an_example_is_one_click(page):
    page.locator(".gallery-item, button.gallery-item").first.click()
    page.wait_for_selector(".legend .entry", timeout=60_000)
    assert page.locator(".legend .entry", has_text="background").count() == 2


def test_a_bad_file_is_answered_in_words(page, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    page.wait_for_selector("input[type=file]", state="attached", timeout=60_000)
    page.set_input_files("input[type=file]", str(bad))
    message = page.get_by_text("This image cannot be used").first
    message.wait_for(timeout=30_000)
    assert "is not a picture of a known format" in message.inner_text()


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_nothing_is_wider_than_the_window(page, size):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    upload(page, CAT)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
