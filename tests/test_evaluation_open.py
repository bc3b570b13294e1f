"""A photograph of an evaluation is opened in Inspect together with its truth, which it is judged by there."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch

from analysis import commands
from analysis.library import Library
from analysis.tabs import evaluation_result
from analysis.tabs.subject import Subject
from analysis.truth import read_truth
from wsss import checkpoint, evaluate
from wsss.data.picture import read_rgb
from wsss.data.shapes import Shapes
from wsss.data.source import read
from wsss.network import build
from wsss.presets import tiny

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def pictures() -> Shapes:
    """What is evaluated."""
    return read("shapes", None, "val")


@pytest.fixture(scope="module")
def runs(runs_folder, pictures) -> Iterator[Path]:
    """A folder of runs with the evaluation "one" of a checkpoint "small", as its job leaves it."""
    model, out = runs_folder / "small", runs_folder / "evaluations" / "one"
    config = replace(tiny(), encoder="test_efficientnet", encoder_weights="none", dataset="shapes")
    torch.manual_seed(0)
    network = build(config, len(pictures.classes) + 1, pretrained=False)
    with torch.no_grad():  # classes win by turns
        network.decoder.layers[-1].weight.mul_(50)
    checkpoint.save(model, network.state_dict(), config, pictures.classes, {})
    out.mkdir(parents=True)
    argv = commands.evaluation_argv(model, "shapes", "", "val", out, refined_by="SPR", multi_scale=False)
    assert evaluate.main(argv[3:]) == 0
    facts = {"kind": "evaluation", "dataset": "shapes", "data": "", "split": "val", "exit_code": 0, "start": 1.0}
    (out / "job.json").write_text(json.dumps(facts | {"label": "small", "checkpoint": str(model)}))
    yield runs_folder
    shutil.rmtree(model)
    shutil.rmtree(out)


@pytest.fixture
def subject(shipped_or_fresh, runs, monkeypatch) -> Subject:
    monkeypatch.setenv("WSSS_RUNS", str(runs))
    with gr.Blocks():
        return Subject(Library([shipped_or_fresh]))


def test_a_photograph_is_opened_with_its_checkpoint_and_its_truth(pictures, subject):
    chosen, photograph, tabs, truth, view = evaluation_result.open_by(subject)("one", pictures.names[3])
    assert chosen.value == "small" and tabs.selected == "Inspect"
    assert np.array_equal(read_rgb(Path(photograph)), pictures.rgb(3))
    shown = read_truth(Path(truth), pictures.classes, pictures.rgb(3).shape[:2])
    assert np.array_equal(shown, pictures.mask(3)) and shown.any()
    assert view == "right or wrong"


def test_a_photograph_without_a_truth_is_opened_alone(pictures, subject, monkeypatch):
    monkeypatch.setattr(Shapes, "mask", lambda self, index: None)
    _, photograph, _, truth, view = evaluation_result.open_by(subject)("one", pictures.names[3])
    assert Path(photograph).is_file() and truth is None and view == gr.skip()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)")
def test_each_opened_photograph_is_judged_right_or_wrong(address, runs):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]).new_page()
        page.set_default_timeout(120_000)
        page.goto(address)
        page.locator(".js-plotly-plot .bars").first.wait_for()  # of the example at the start
        lines = page.get_by_role("gridcell").or_(page.locator("td")).get_by_text("shapes-1-").locator("visible=true")
        judged = page.locator(".legend:visible", has_text="mean IoU")
        said = ""
        for line in (0, 1):
            page.get_by_role("tab", name="Evaluate", exact=True).click()
            lines.nth(line).click()
            page.locator(".caption-label:visible, .caption:visible").first.wait_for()
            page.get_by_role("button", name="Open in Inspect").click()
            judged.filter(has_not_text=said or "nothing is said yet").wait_for()
            said = judged.inner_text()
            assert page.get_by_label("right or wrong").is_checked()
        page.get_by_text("shown at 96x96").wait_for()
        assert not page.get_by_text("belonged to the previous photograph").count()
