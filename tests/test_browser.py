"""The page in a real browser: a visitor uploads a photograph, looks, and moves the sliders."""

import json
import re
import shutil
import time
import zipfile
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import pytest
from reliability import until

from wsss.refinement import DILATIONS

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 120_000  # milliseconds; several pages, servers and trainings may share two cores
sync_api.expect.set_options(timeout=PATIENCE)
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
ASTRONAUT = Path(__file__).parent.parent / "analysis" / "examples" / "astronaut.jpg"
CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
PICTURES = {
    "Inspect": ("Photograph | mask", "Mask: click a pixel"),
    "Shape cues": ("Self-information (Eq. 3)", "Drop probability (Eq. 4)", "One draw: black is dropped"),
    "CAMs": (
        "Predicted region: click a pixel",
        "CAM: this network's score map",
        "Methods by stages",
    ),
    "Refinement": ("m_0: not refined yet", "Pseudo mask: click a pixel", "Unlabelled pixels"),
    "Sweep": ("Click a cell to open it in Refinement",),
    "Compare": ("Left | right", "Difference"),
}
"""Of each tab, by their labels."""

SIZE = {"width": 1440, "height": 900}
"""Of the window."""


UNANSWERED = WeakKeyDictionary()
"""Of each page, the requests under way and when each was sent."""

COMPLAINTS = WeakKeyDictionary()
"""Of each page, errors on its console and requests that leave the machine."""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def blank(browser):
    """A window that has gone nowhere; it fails the test on an error in the console or a request that leaves here."""
    page = opened(browser)
    yield page
    page.close()
    assert not COMPLAINTS[page]


@pytest.fixture
def page(blank, address):
    """A fresh visitor's page."""
    blank.goto(address)
    return blank


@pytest.fixture(scope="module")
def lasting(browser, address):
    """A page that shows its example; to load one takes seconds, so that several tests use it in turn."""
    page = opened(browser)
    page.goto(address)
    begin(page)
    yield page
    page.close()


@pytest.fixture
def page_at(lasting):
    """Opens a tab of the lasting page with its settings as they were at first."""

    def at(tab: str):
        show(lasting, tab)
        settle(lasting)
        own = lasting.get_by_role("button", name="Checkpoint's settings").locator("visible=true")
        for button in own.all() or lasting.get_by_label("Reset to default value").locator("visible=true").all():
            button.click()
        settle(lasting)
        return lasting

    yield at
    lasting.set_viewport_size(SIZE)
    assert not COMPLAINTS[lasting]


def opened(browser):
    """A page whose `COMPLAINTS` are collected; it keeps in `UNANSWERED` what it has asked for, and when."""
    page, waiting = browser.new_page(viewport=SIZE), {}
    page.set_default_timeout(PATIENCE)
    complaints = COMPLAINTS[page] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if leaves(request.url) else None)

    def asks(request) -> None:
        now = time.monotonic()
        waiting[request] = now
        if "/queue/join" in request.url:  # its answer comes by the stream, which may be open already
            waiting.update((other, now) for other in waiting if "/queue/data" in other.url)

    page.on("request", asks)
    page.on("requestfinished", lambda request: waiting.pop(request, None))
    page.on("requestfailed", lambda request: waiting.pop(request, None))
    UNANSWERED[page] = waiting
    return page


IDLE = "() => new Promise(done => requestIdleCallback(done, {timeout: 500}))"


def settle(page) -> None:
    """Wait until the page has its answers, and asks for no more: a late one would be taken for that to a slider.

    Queued answers come by a stream that ends with the last of them; now and then Gradio forgets to end it.
    """
    begun, quiet = time.monotonic(), 0
    while quiet < 4:
        page.wait_for_timeout(50)
        page.evaluate(IDLE)  # what it is going to ask, it asks when it has time
        asked = [request for request, at in UNANSWERED[page].items() if time.monotonic() - at < 10]
        quiet = 0 if any("/heartbeat/" not in request.url for request in asked) else quiet + 1
        assert time.monotonic() - begun < 120, [request.url for request in asked]


def leaves(url: str) -> bool:
    """Whether it leads away from this machine."""
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def begin(page) -> None:
    """Wait for what the page shows of itself: the example of a cat."""
    page.wait_for_selector(".js-plotly-plot .bars", state="attached")
    settle(page)


def upload(page, path: Path) -> None:
    begin(page)
    with page.expect_response(lambda response: "/upload?" in response.url):
        page.set_input_files("input[type=file]", str(path))
    settle(page)


def show(page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def picture(page, label: str):
    """The last image of the block with that label, once it is there."""
    image = page.locator(".block:visible", has=page.get_by_text(label, exact=True)).last.locator("img").last
    image.wait_for(state="visible")
    return image


def changes(image, act) -> bool:
    """True once the image has become another one after `act`; fails where it stays."""
    settle(image.page)
    before = image.get_attribute("src")
    act()
    # Looked up anew each time: the page may have put another element in its place.
    sync_api.expect(image).not_to_have_attribute("src", before)
    return True


def number_of(page, label: str):
    """The number box beside the slider with that label."""
    return page.get_by_label(f"number input for {label}", exact=True).locator("visible=true")


def move(page, label: str, value: str) -> None:
    number = number_of(page, label)
    number.fill(value)
    number.press("Enter")


def choose(page, label: str, choice: str) -> None:
    page.get_by_label(label, exact=True).locator("visible=true").click()
    page.get_by_role("option", name=choice, exact=True).click()
    sync_api.expect(page.get_by_role("option")).to_have_count(0)  # the list fades out, beside the next one


@pytest.mark.slow
def test_a_number_box_that_is_emptied_raises_no_complaint(page_at):
    page = page_at("Shape cues")
    number = number_of(page, "R1")
    assert changes(picture(page, "Self-information (Eq. 3)"), partial(number.fill, ""))  # of the least radius
    number.press("Tab")
    sync_api.expect(number).to_have_value("1")
    assert not page.get_by_text("went wrong").count()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tab", "moves"),
    [
        ("Shape cues", {"R1": ("1", "Self-information (Eq. 3)"), "tau": ("0.05", "Drop probability (Eq. 4)")}),
        ("Refinement", dict.fromkeys(("threshold", "alpha", "T"), ("0", "Pseudo mask: click a pixel"))),
        ("Inspect", {"opacity": ("1", "Mask: click a pixel"), "confidence": ("0.95", "Mask: click a pixel")}),
    ],
)
def test_a_slider_changes_its_picture(page_at, tab, moves):
    page = page_at(tab)
    for slider, (value, label) in moves.items():
        assert changes(picture(page, label), partial(move, page, slider, value)), slider


@pytest.mark.slow
def test_a_class_takes_the_visitors_color_and_gives_it_back(page_at):
    page = page_at("Inspect")
    image = picture(page, "Mask: click a pixel")
    page.get_by_text("Colors of the classes").click()
    of_voc = page.locator("button.dialog-button").get_attribute("style")
    page.locator("button.dialog-button").click()
    written = page.locator(".color-picker input[type=text]")

    def paint() -> None:
        written.fill("#00ffff")
        written.press("Enter")

    assert changes(image, paint)
    assert changes(image, page.get_by_role("button", name="VOC's colors").click)
    sync_api.expect(page.locator("button.dialog-button")).to_have_attribute("style", of_voc)


@pytest.mark.slow
def test_a_slider_that_is_put_back_changes_its_picture(page_at):
    page = page_at("Inspect")
    shown = picture(page, "Mask: click a pixel")
    assert changes(shown, partial(move, page, "opacity", "1"))
    assert changes(shown, page.get_by_label("Reset to default value").locator("visible=true").first.click)


@pytest.mark.slow
def test_what_a_tab_shows_can_be_downloaded(page_at):
    page = page_at("Inspect")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download: PNG, arrays, settings").locator("visible=true").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert set(archive.namelist()) == {"mask.png", "arrays.npz", "settings.json"}
        assert json.loads(archive.read("settings.json"))["settings"]["opacity"] == 0.55


@pytest.mark.slow
def test_a_clicked_pixel_shows_its_probabilities_and_its_neighbours(page_at):
    page = page_at("Inspect")
    image = picture(page, "Mask: click a pixel")
    page.get_by_text("row 150, column 225").first.wait_for()  # the center
    assert changes(image, lambda: image.click(position={"x": 60, "y": 80}))
    page.get_by_text("row 150, column 225").first.wait_for(state="hidden")
    show(page, "Refinement")
    drawn = picture(page, "The pixel's neighbours")
    assert changes(drawn, lambda: picture(page, "Pseudo mask: click a pixel").click(position={"x": 20, "y": 70}))


DRAG = """async label => {
  const shown = element => element.offsetParent !== null;
  const slider = [...document.querySelectorAll(`input[aria-label="range slider for ${label}"]`)].find(shown);
  for (let i = 1; i <= 40; i++) {
    slider.value = i < 40 ? i % 29 + 1 : 0;
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    await new Promise(done => setTimeout(done, 16));
  }
}"""


@pytest.mark.slow
def test_a_drag_of_40_events_ends_on_its_last_value(page_at):
    page = page_at("Refinement")
    image = picture(page, "Pseudo mask: click a pixel")
    assert changes(image, lambda: move(page, "T", "0"))
    settle(page)  # an older answer may be the first change
    at_zero = image.get_attribute("src")  # a picture's address is made of its content
    assert changes(image, lambda: move(page, "T", "5"))
    page.evaluate(DRAG, "T")  # 1, 2, ... 29 again and again, and 0 at last
    sync_api.expect(image).to_have_attribute("src", at_zero)
    settle(page)  # an older answer that comes later would draw over it
    assert image.get_attribute("src") == at_zero


def test_a_mistake_on_a_control_that_answers_at_once_is_told(page_at):
    page = page_at("Refinement")
    rings = page.locator("fieldset:visible", has_text="distances of the neighbours").get_by_role("checkbox")
    for ring in rings.all():
        ring.uncheck()
    page.locator(".toast-body", has_text="dilation").first.wait_for()
    assert rings.count() == 6 and page.locator(".toast-body").count() == 1
    page_at("Refinement")  # a test of another tab may look at this one's pictures


@pytest.mark.slow
def test_a_phone_scrolls_along_the_film_strip_and_clicks_a_step(page_at):
    page = page_at("Refinement")
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_text("Step by step: click one").scroll_into_view_if_needed()  # the browser loads it only then
    strip = picture(page, "Step by step: click one")
    strip.evaluate("image => { image.closest('button').scrollLeft = image.width; }")
    strip.click(position={"x": strip.bounding_box()["width"] - 20, "y": 40})  # the last step
    sync_api.expect(number_of(page, "T")).to_have_value("30")


MARKED = """() => {
  const curves = figure => figure.offsetParent && figure.layout.annotations?.some(a => a.text.startsWith("length of"));
  return [...document.querySelectorAll(".js-plotly-plot")].find(curves)?.layout.shapes[0].x0;
}"""
"""The step at which the line of the visible curves stands."""

LEAST = """async number => {
  let least = Infinity;
  for (const end = Date.now() + 1000; Date.now() < end; await new Promise(done => setTimeout(done, 20)))
    least = Math.min(least, number.value);
  return least;
}"""
"""The least value of a number box within a second."""


@pytest.mark.slow
def test_the_curves_mark_the_t_at_which_playing_ends(page_at):
    page = page_at("Refinement")
    page.wait_for_function(f"() => ({MARKED})() > 0")
    settle(page)  # a late answer of the beginning would mark the T of then
    number = number_of(page, "T")
    for ends in ("Stop", "Play"):  # by hand, and at the last step
        page.get_by_role("button", name="Play", exact=True).click()
        page.get_by_role("button", name="Stop", exact=True).wait_for()
        plays = "T => T.value > 0 && T.value < 15"  # asked by the clock: a busy machine draws a frame in seconds
        page.wait_for_function(plays, arg=number.element_handle(), polling=50)
        if ends == "Stop":
            page.get_by_role("button", name="Stop", exact=True).evaluate("button => button.click()")  # needs no frame
        else:
            move(page, "T", "28")
            assert page.evaluate(LEAST, number.element_handle()) >= 28  # it goes on from there
        page.get_by_role("button", name="Play", exact=True).wait_for()
        page.wait_for_function(f"T => ({MARKED})() === +T.value", arg=number.element_handle())
    assert number.input_value() == "30"


@pytest.mark.slow
def test_a_slider_that_is_moved_by_keys_changes_what_waits_until_it_is_let_go(page_at):
    page = page_at("Refinement")
    film = picture(page, "Step by step: click one")
    alpha = page.get_by_label("range slider for alpha", exact=True).locator("visible=true")
    assert changes(film, partial(alpha.press, "Home"))


@pytest.mark.slow
def test_a_number_that_is_typed_changes_what_waits_until_the_slider_is_let_go(page_at):
    page = page_at("Refinement")
    film, number = picture(page, "Step by step: click one"), number_of(page, "alpha")
    number.click()
    for keys in (["ArrowDown"], ["Control+a", "0", "Enter"]):
        assert changes(film, lambda keys=keys: [number.press(key) for key in keys])
    assert number.evaluate("box => box === document.activeElement"), "it has not been left"


@pytest.mark.slow
def test_after_a_mistake_the_file_that_was_made_before_is_not_given_again(page_at):
    page = page_at("Refinement")
    given, button = [], page.get_by_role("button", name="Download: PNG, arrays, settings").locator("visible=true")
    page.on("download", lambda download: given.append(download))
    with page.expect_download():
        button.click()
    for dilation in DILATIONS:
        page.get_by_label(str(dilation), exact=True).locator("visible=true").uncheck()
    settle(page)
    button.click()
    page.get_by_text("Dilations must be some of").first.wait_for()
    settle(page)
    assert len(given) == 1
    page_at("Refinement")  # a sweep refines over this tab's dilations


@pytest.mark.slow
def test_another_axis_makes_another_sweep_though_its_values_are_the_same(page_at):
    page = page_at("Sweep")
    sheet = picture(page, "Click a cell to open it in Refinement")
    for axis in ("threshold", "background threshold"):
        assert changes(sheet, partial(choose, page, "Rows", axis)), axis
        page.locator(".js-plotly-plot:visible", has_text=axis).wait_for()


@pytest.mark.slow
def test_a_list_that_is_left_is_not_one_that_was_chosen_from(page_at):
    for tab, text, chosen, others in (
        ("Train", "Name of the run", "Preset", ("voc", "tiny")),
        ("Sweep", "values", "Rows", ("T", "alpha")),
    ):
        page = page_at(tab)
        written = page.get_by_label(text).locator("visible=true").first
        written.fill("0.25")
        settle(page)
        page.get_by_label(chosen, exact=True).locator("visible=true").click()
        page.keyboard.press("Tab")
        settle(page)
        assert written.input_value() == "0.25"
        for other in others:  # the first may be what was chosen before
            choose(page, chosen, other)
            settle(page)
        sync_api.expect(written).not_to_have_value("0.25")


@pytest.mark.slow
def test_of_two_sweeps_the_later_one_stays(page_at):
    page = page_at("Sweep")
    for label, axis in (("Rows", "R1"), ("Columns", "tau"), ("Columns", "nothing"), ("Rows", "floor")):
        choose(page, label, axis)
    page.locator(".js-plotly-plot:visible", has_text="floor").wait_for()
    settle(page)  # until the first one has ended too
    assert page.locator(".js-plotly-plot:visible", has_text="floor").count() == 1


@pytest.mark.slow
def test_a_cell_of_a_sweep_opens_in_the_refinement(page_at):
    page = page_at("Sweep")
    choose(page, "Rows", "alpha")
    settle(page)
    page.locator(".js-plotly-plot:visible").wait_for()  # the sweep has ended
    picture(page, "Click a cell to open it in Refinement").click(position={"x": 60, "y": 60})  # alpha = 0
    picture(page, "Pseudo mask: click a pixel")
    sync_api.expect(number_of(page, "alpha")).to_have_value("0")


@pytest.mark.slow
def test_a_link_opens_the_tab_that_it_was_copied_on(browser, page_at):
    page = page_at("Sweep")
    page.locator(".js-plotly-plot:visible").wait_for()
    page.get_by_role("button", name="Copy a link to these settings").click()
    page.wait_for_url("**tab=Sweep**")
    other = opened(browser)
    other.goto(page.url)
    picture(other, "Click a cell to open it in Refinement")
    other.close()


@pytest.mark.slow
def test_a_link_brings_the_settings_back(blank, address):
    page = blank
    page.goto(
        f"{address}?alpha=0.3&T=7&threshold=unicorn&R1=999&seed=5&checkpoint=gone&left_checkpoint=animals-two-stage"
        "&tab=unicorn"
    )
    page.get_by_text("The checkpoint 'gone' of the link is not here.").wait_for()
    picture(page, "Mask: click a pixel")  # of the first tab: there is none of that name
    show(page, "Refinement")
    values = {label: number_of(page, label) for label in ("alpha", "T", "threshold", "R1")}
    sync_api.expect(values["alpha"]).to_have_value("0.3")
    sync_api.expect(values["T"]).to_have_value("7")
    assert 0 < float(values["threshold"].input_value()) <= 1
    show(page, "Shape cues")
    sync_api.expect(values["R1"]).to_have_value("7")  # 999 is none
    sync_api.expect(page.get_by_label("seed").locator("visible=true")).to_have_value("5")
    show(page, "Compare")
    left = page.get_by_label("Left: checkpoint", exact=True).locator("visible=true")
    sync_api.expect(left).to_have_value("animals-two-stage")


@pytest.mark.slow
def test_the_class_of_the_maps_stays_chosen_by_a_link_and_by_hand(blank, address):
    page = blank
    page.goto(f"{address}?cam_class=dog")
    chosen = page.get_by_label("Class", exact=True).locator("visible=true")

    def reopen() -> None:
        show(page, "Inspect")
        show(page, "CAMs")
        settle(page)  # in which the tab would choose its own

    show(page, "CAMs")
    picture(page, "Methods by stages")
    reopen()
    sync_api.expect(chosen).to_have_value("dog")
    choose(page, "Class", "sheep")
    reopen()
    sync_api.expect(chosen).to_have_value("sheep")
    page.locator(".gallery-item, button.gallery-item").last.click()  # an astronaut
    sync_api.expect(chosen).not_to_have_value("sheep")


def test_a_bad_file_is_answered_in_words(page, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    page.wait_for_selector("input[type=file]", state="attached")
    page.set_input_files("input[type=file]", str(bad))
    message = page.get_by_text("This image cannot be used").first
    message.wait_for()
    assert "is not a picture of a known format" in message.inner_text()


# These leave the page with another photograph or checkpoint, and so come last.


def test_the_refinement_goes_on_without_the_class_that_it_showed(page_at):
    """The fixture takes a red error for a complaint."""
    page = page_at("Refinement")
    chosen = page.get_by_label("maps of the class", exact=True).locator("visible=true")
    sync_api.expect(chosen).to_have_value("cat")
    film = picture(page, "Step by step: click one")
    chip = page.get_by_role("checkbox", name=re.compile(r"cat \d+ %"))
    assert changes(film, chip.click)
    sync_api.expect(chosen).to_have_value("background")
    settle(page)
    assert page.get_by_text("is not in the list of choices").count() == 0
    chip.click()


@pytest.mark.slow
def test_another_checkpoint_brings_its_own_settings_until_one_is_moved(page_at):
    if not (CHECKPOINTS / "table5-baseline").is_dir():
        pytest.skip("the checkpoints of Table 5 are not here")
    page = page_at("Refinement")
    alpha = number_of(page, "alpha")
    choose(page, "Checkpoint", "table5-baseline")
    sync_api.expect(alpha).to_have_value("1")
    show(page, "Compare")
    picture(page, "Difference")
    choose(page, "Left: checkpoint", "table5-baseline")
    sync_api.expect(number_of(page, "alpha").first).to_have_value("1")
    sync_api.expect(number_of(page, "alpha").last).to_have_value("0.88")
    show(page, "Refinement")
    settle(page)
    move(page, "alpha", "0.5")
    settle(page)
    choose(page, "Checkpoint", "animals")
    settle(page)
    sync_api.expect(alpha).to_have_value("0.5")


@pytest.mark.slow
def test_each_tab_shows_its_pictures_and_is_no_wider_than_the_window(page_at):
    page = page_at("Inspect")
    upload(page, ASTRONAUT)
    for tab, labels in PICTURES.items():
        show(page, tab)
        for width, height in ((1440, 900), (390, 844)):
            page.set_viewport_size({"width": width, "height": height})
            for label in labels:
                # Looked up anew each time: the page may have put another element in its place.
                until(lambda label=label: picture(page, label).evaluate("image => image.naturalWidth") >= 512, 120)
            page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")


def test_tabs_that_do_not_look_at_the_photograph_begin_at_the_top(page_at):
    page = page_at("Inspect")
    page.evaluate("scrollTo(0, 0)")
    names = page.get_by_role("tablist")
    top = names.bounding_box()["y"]
    for tab in ("Train", "Evaluate", "Results"):
        show(page, tab)
        sync_api.expect(page.get_by_label("Checkpoint", exact=True)).to_be_hidden()
        assert names.bounding_box()["y"] == top
    show(page, "Inspect")
    sync_api.expect(page.get_by_label("Checkpoint", exact=True)).to_be_visible()
    assert names.bounding_box()["y"] == top


def test_an_example_is_one_click(page_at):
    page = page_at("Inspect")
    image = picture(page, "Mask: click a pixel")
    examples = page.locator(".gallery-item, button.gallery-item")
    examples.last.click()  # it may be there already
    assert changes(image, examples.first.click)
    assert page.locator(".legend .entry:visible", has_text="background").count() == 1


@pytest.mark.slow
def test_a_checkpoint_of_the_visitor_is_offered_and_chosen_and_brings_its_settings(page_at, shipped_or_fresh, tmp_path):
    described = json.loads((shipped_or_fresh / "config.json").read_text())
    described["config"]["alpha"] = 0.25
    (tmp_path / "config.json").write_text(json.dumps(described))
    page = page_at("Refinement")
    page.get_by_role("button", name="Checkpoint's settings").locator("visible=true").click()
    settle(page)
    page.get_by_text("A checkpoint of your own (optional)").click()
    inputs = page.locator(".block", has=page.get_by_text("model.safetensors or a .pt file")).locator("input[type=file]")
    inputs.set_input_files([str(shipped_or_fresh / "model.safetensors"), str(tmp_path / "config.json")])
    chosen = "() => document.querySelector('input[aria-label=Checkpoint]').value === 'model'"
    page.wait_for_function(chosen)
    assert picture(page, "Pseudo mask: click a pixel").is_visible()
    sync_api.expect(number_of(page, "alpha")).to_have_value("0.25")
    show(page, "Evaluate")
    sync_api.expect(page.get_by_label("Checkpoint to evaluate")).to_have_value("model")
