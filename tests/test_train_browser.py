"""Training from the page in a real browser: the run outlives a reload and a killed server, and is opened at the end."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from reliability import until

from analysis import run_files, runs

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
ROOT = Path(__file__).parent.parent
SETTINGS = {
    "Data": {"crop": "32"},
    "Network": {
        "encoder": "test_efficientnet",
        "encoder_weights": "none",
        "aspp_channels": "8",
        "decoder_channels": "8",
    },
    "Optimisation": {"epochs": "1000", "precision": "float32"},
    "Records": {"previews": "2", "eval_epochs": "1"},
}
"""`tiny`, cut so that an epoch takes seconds, with so many that it ends only when it is stopped."""
PATIENCE = 120_000  # milliseconds; the training and the page share the machine with whatever else it does


@contextmanager
def crashing_app(checkpoint: Path) -> Iterator[str]:
    """The app, as a newcomer starts it; gives its address, and ends it as a crash would."""
    words = [sys.executable, "-u", "app.py", "--checkpoint", str(checkpoint)]
    app = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = ""
    for line in app.stdout:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    else:
        pytest.fail(f"the app did not start: {said[-1000:]}")
    threading.Thread(target=app.stdout.read, daemon=True).start()
    try:
        yield found[0]
    finally:
        app.kill()
        app.wait()


@pytest.fixture
def place(runs_folder, monkeypatch) -> Iterator[None]:
    """The folder of runs of the other app, too; what the test has put there is ended and removed."""
    monkeypatch.setenv("WSSS_RUNS", str(runs_folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = set(runs_folder.glob("*")) | set(runs_folder.glob("evaluations/*"))
    yield
    for found in [*runs.found_runs(), *runs.found_evaluations()]:
        if alive := runs.living_warden(found.job, found.folder):
            for process in [alive, *alive.children(recursive=True)]:
                process.kill()
    for folder in (set(runs_folder.glob("*")) | set(runs_folder.glob("evaluations/*"))) - before:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def page(place) -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def control(page, label: str):
    """The input of the setting with that label, on the tab that is open."""
    of_label = f"//*[@data-testid='block-info' and normalize-space()='{label}']"
    block = page.locator(f"{of_label}/ancestor::*[contains(concat(' ', @class, ' '), ' block ')][1]")
    return block.locator("input:visible, textarea:visible").first


def press(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def fill_in(page) -> None:
    for group, values in SETTINGS.items():
        page.get_by_text(group, exact=True).locator("visible=true").click()
        for label, value in values.items():
            control(page, label).fill(value)
            control(page, label).press("Tab")


def wait_for(page, state: str, place: str = "run") -> None:
    page.locator(f"#{place}-status [data-state={state}]").wait_for()


def step_of(name: str) -> int:
    return runs.progress(runs.known(name))[0]


def visit(page, address: str, tab: str) -> None:
    page.goto(address)
    open_tab(page, tab)


def test_a_run_outlives_the_page_and_the_server_and_its_result_is_opened(page, address, shipped_or_fresh):
    with crashing_app(shipped_or_fresh) as first:
        visit(page, first, "Train")
        fill_in(page)
        press(page, "Start")
        wait_for(page, "running")
        pid = runs.known("tiny-1").job["pid"]
        assert "--crop=32" in page.locator(".cm-content").last.inner_text()
        until(lambda: step_of("tiny-1") > 0, 120)
        before = step_of("tiny-1")
    os.kill(pid, 0)  # the job is still there

    visit(page, address, "Train")  # of another server
    wait_for(page, "running")
    page.locator("#run-status", has_text="of 10000").wait_for()
    page.wait_for_function("() => document.querySelector('#run-log textarea').value.includes('epoch 1/1000 |')")
    assert runs.known("tiny-1").job["pid"] == pid and step_of("tiny-1") > before

    press(page, "Stop")
    wait_for(page, "stopped")
    stopped_at = step_of("tiny-1")
    assert runs.known("tiny-1").code == 143

    press(page, "Resume")
    wait_for(page, "running")
    until(lambda: step_of("tiny-1") >= stopped_at + 3, 120)
    press(page, "Stop")
    wait_for(page, "stopped")
    steps = [row["step"] for row in run_files.metrics(runs.folder_of("tiny-1")) if "total" in row]
    assert steps == sorted(set(steps)) and steps[-1] > stopped_at
    page.locator(".js-plotly-plot:visible .scatterlayer").first.wait_for()
    page.get_by_text("shapes-1-0", exact=True).first.wait_for()  # a preview

    open_tab(page, "Evaluate")
    control(page, "Checkpoint to evaluate").fill("runs/tiny-1 (best)")
    control(page, "Checkpoint to evaluate").press("Enter")
    press(page, "Evaluate")
    wait_for(page, "finished", "evaluation")
    line = page.get_by_role("gridcell").or_(page.locator("td")).get_by_text("shapes-1-", exact=False)
    line.locator("visible=true").first.click()
    page.get_by_text("green: right, red: wrong, dark: not counted").first.wait_for()
    press(page, "Open in Inspect")
    page.locator(".legend", has_text="test_efficientnet").locator("visible=true").first.wait_for()
    of_shape = "[...document.images].filter(image => image.checkVisibility() && image.naturalWidth === 96).length"
    page.wait_for_function(f"() => {of_shape} >= 4")  # the photograph, both halves of the pair, and the mask
    assert not page.get_by_text("Error", exact=True).locator("visible=true").count()
