"""The running app, asked over HTTP."""

import base64
import importlib
import io
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from analysis.gradcam import explain
from analysis.predictor import Predictor
from analysis.pseudo_settings import PseudoSettings
from analysis.shape_cues import shape_cues
from analysis.tabs import scene
from analysis.tabs import shape_cues as cues_tab
from analysis.tabs.words import in_words
from wsss import UNLABELLED
from wsss.config import Config
from wsss.crf import available as crf_is_available
from wsss.data.picture import read_rgb
from wsss.probabilities import to_image

ROOT = Path(__file__).parent.parent
CAT = ROOT / "analysis" / "examples" / "chelsea.jpg"
PRESENT = ["cat", "dog"]
DILATIONS = [1, 2, 4, 8, 12, 24]
REFINEMENT = (0.8, 10, 0.6, 0.7, 0.2, DILATIONS, True, "cat")  # alpha, T, thresholds, floor, ..., class of the maps


@pytest.fixture(scope="module")
def client(address) -> Client:
    return Client(address, verbose=False, httpx_kwargs={"timeout": 60})


@pytest.fixture
def visitor(client) -> Client:
    """Whom the server does not know yet."""
    client.reset_session()
    return client


def within(shown: dict) -> Image.Image:
    """A picture that travels within an answer."""
    return Image.open(io.BytesIO(base64.b64decode(shown["url"].removeprefix("data:image/jpeg;base64,"))))


def give(visitor: Client, path: Path) -> tuple:
    return visitor.predict("animals", handle_file(str(path)), None, [], api_name="/photograph")


def refined(visitor: Client, *settings) -> tuple:
    return visitor.predict("animals", PRESENT, *settings, api_name="/pseudo")


def test_a_photograph_gets_its_classes(visitor):
    present, about, *_ = give(visitor, CAT)
    assert "cat" in present["value"] and "mIoU" in about


def test_each_tab_answers_for_the_visitors_own_photograph(visitor, address, tmp_path):
    wide = tmp_path / "wide.png"
    Image.new("RGB", (200, 64), "green").save(wide)
    other = Client(address, verbose=False, httpx_kwargs={"timeout": 60})
    give(visitor, CAT)
    give(other, wide)
    for client, size in ((visitor, (451, 300)), (other, (200, 64))):
        pair, legend, pointed, _ = client.predict("animals", PRESENT, 0.5, 0.2, "SPR", "the mask", api_name="/mask")
        after, pseudo, names, unlabelled, _ = refined(client, *REFINEMENT)
        assert {within(shown).size for shown in (*pair, pointed, after, pseudo, unlabelled)} == {size}
        assert "background" in legend and "%" in names
        cues = client.predict("animals", PRESENT, 7, 1, 0.5, 9, 3, 0.5, False, 0, api_name="/shape_cues")
        assert within(cues[0]).size == size and "nats" in cues[1]


def test_an_empty_number_box_means_the_sliders_least_value(visitor):
    give(visitor, CAT)
    cues = [
        visitor.predict("animals", PRESENT, radius, 1, 0.5, 9, 3, 0.5, False, 0, api_name="/shape_cues")[0]["url"]
        for radius in (None, 1, 7)
    ]
    assert cues[0] == cues[1] != cues[2]


@pytest.mark.parametrize("epoch", [None, 8])
def test_a_page_that_is_older_than_the_server_sees_its_runs(visitor, epoch):
    assert visitor.predict(None, [], epoch, False, api_name="/train_look")


def test_no_button_calls_our_defaults_the_papers(address):
    page = httpx.get(f"{address}/config", timeout=60).json()
    names = {part["props"].get("value") for part in page["components"] if part["type"] == "button"}
    assert "Default settings" in names and "Paper's settings" not in names


def test_moving_t_changes_the_pseudo_mask(visitor):
    give(visitor, CAT)
    first, second = (np.asarray(within(refined(visitor, 0.8, steps, *REFINEMENT[2:])[1])) for steps in (0, 20))
    assert not np.array_equal(first, second)


def test_before_there_is_a_photograph_the_page_stays_empty(visitor):
    assert visitor.predict("animals", [], *REFINEMENT, api_name="/pseudo")[:4] == (None,) * 4


def test_the_interface_for_others_is_six_questions(visitor):
    offered = visitor.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(offered) == {"/segment", "/self_information", "/refine", "/cam", "/sweep", "/affinity"}


def test_the_interface_gives_what_the_predictor_gives(visitor, shipped_or_fresh):
    predictor = Predictor.from_checkpoint(shipped_or_fresh)
    encoding = predictor.encode(read_rgb(CAT))
    mask, areas = visitor.predict(handle_file(str(CAT)), 0.5, api_name="/segment")
    assert np.array_equal(np.asarray(Image.open(mask)), predictor.mask(encoding, 0.5))
    assert sum(areas.values()) == pytest.approx(1)
    pseudo, _ = visitor.predict(handle_file(str(CAT)), ["cat", "dog"], 0.3, 7, 0.5, 0.6, api_name="/refine")
    settings = PseudoSettings(0.3, 7, 0.5, 0.6, 0.2, DILATIONS, predictor.config.background_affinity)
    assert np.array_equal(np.asarray(Image.open(pseudo)), predictor.pseudo(encoding, ("cat", "dog"), settings))
    _, nats = visitor.predict(handle_file(str(CAT)), api_name="/self_information")
    image = to_image(encoding.rgb, predictor.config.test_short_side)
    seen = predictor.network.shape_cue.information(image).max().item()
    assert nats["greatest"] == pytest.approx(seen, rel=1e-4)
    settings = {"radius": 3, "bandwidth": 0.5, "samples": 0, "patch": 1}
    _, nats = visitor.predict(handle_file(str(CAT)), *settings.values(), api_name="/self_information")
    cues = shape_cues(encoding.rgb, **settings, short_side=predictor.config.test_short_side)
    assert nats["greatest"] == pytest.approx(cues.information.max(), rel=1e-4)


@pytest.mark.skipif(not crf_is_available(), reason="pydensecrf is not installed")
def test_the_interface_refines_by_a_crf_and_takes_a_floor(visitor, shipped_or_fresh):
    predictor = Predictor.from_checkpoint(shipped_or_fresh)
    encoding = predictor.encode(read_rgb(CAT))
    mask, _ = visitor.predict(handle_file(str(CAT)), 0, True, api_name="/segment")
    assert np.array_equal(np.asarray(Image.open(mask)), predictor.mask(encoding, refined_by="CRF"))
    pseudo, _ = visitor.predict(handle_file(str(CAT)), ["cat"], 0.5, 10, 0.5, 0.6, 1, api_name="/refine")
    assert (np.asarray(Image.open(pseudo)) == UNLABELLED).all(), "no score lies above one"


def test_the_maps_of_the_stages_are_those_of_the_analysis(visitor, shipped_or_fresh):
    predictor = Predictor.from_checkpoint(shipped_or_fresh)
    picture, facts = visitor.predict(handle_file(str(CAT)), "cat", "LayerCAM", "pixel", 40, 50, api_name="/cam")
    encoding = predictor.encode(read_rgb(CAT))
    _, *cams = explain(predictor, encoding, "cat", methods=("LayerCAM",), target="pixel", pixel=(40, 50))
    assert Image.open(picture).size == (451, 300 * len(cams))
    for cam in cams:
        assert facts[cam.stage]["greatest"] == pytest.approx(cam.high, rel=1e-3, abs=1e-9)


def test_a_sweep_answers_with_a_measure_for_each_value(visitor):
    sheet, measures = visitor.predict(handle_file(str(CAT)), ["cat"], "alpha", "0, 0.5, 1", api_name="/sweep")
    assert list(measures) == ["0", "0.5", "1"] and all(0 < cell["valid"] <= 1 for cell in measures.values())
    assert Image.open(sheet).width > 600


def test_the_weights_of_a_pixels_neighbours_sum_to_one(visitor):
    _, weights = visitor.predict(handle_file(str(CAT)), "cat", 100, 200, 0.8, api_name="/affinity")
    for kind in ("color", "class", "joint"):
        assert len(weights[kind]) == 48 and sum(weights[kind]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((["cat"], 2, 10, 0.5, 0.5), "Alpha must be a number from 0 to 1, got 2"),
        ((["cat"], 0.5, 31, 0.5, 0.5), "T must be a number from 0 to 30, got 31"),
        ((["cat"], True, 10, 0.5, 0.5), "Alpha must be a number"),
        ((["cat"], 0.5, 10, "0.5", 0.5), "The threshold must be a number"),
        ((["cat"], 0.5, 10, 0.5, None), "The background's threshold must be a number"),
        ((["unicorn"], 0.5, 10, 0.5, 0.5), "unicorn"),
    ],
)
def test_a_wrong_number_is_refused_in_one_sentence(visitor, given, words):
    with pytest.raises(AppError, match=words):
        visitor.predict(handle_file(str(CAT)), *given, api_name="/refine")


def test_a_question_without_a_picture_is_refused_in_one_sentence(visitor):
    with pytest.raises(AppError, match="A picture is needed"):
        visitor.predict(None, 0, api_name="/segment")


def test_a_failure_of_ours_gets_a_number_and_its_traceback_only_goes_to_the_log(caplog):
    def broken():
        raise OSError("/somewhere/secret")

    with pytest.raises(gr.Error) as told:
        in_words(broken)()
    assert "secret" not in told.value.message
    number = told.value.message.removesuffix(".").split()[-1]
    assert number in caplog.text and "secret" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jpg", b"", "is empty"),
        ("cut.jpg", CAT.read_bytes()[:3000], "cannot be read as a picture"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(visitor, tmp_path, name, content, words):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(AppError, match=f"This image cannot be used: it {words}") as refused:
        visitor.predict(handle_file(str(file)), 0, api_name="/segment")
    assert "wsss-page" not in str(refused.value) and "gradio" not in str(refused.value)
    assert "cat" in give(visitor, CAT)[0]["value"], "the app answers afterwards"


def refused(*flags: str) -> str:
    """What the app says to flags that it refuses, before the imports that take seconds."""
    command = [sys.executable, "-X", "importtime", "app.py", *flags]  # what is imported goes to standard error too
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert not re.search(r"\|\s+(torch|gradio)$", result.stderr, re.MULTILINE)
    return result.stderr


def test_a_missing_checkpoint_is_one_sentence(tmp_path):
    assert "nothing: is not a checkpoint folder" in refused("--checkpoint", str(tmp_path / "nothing"))


def test_a_busy_port_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1, port {port}: cannot be served on" in refused("--port", str(port))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--name", "shapes.example.org"], "ask them for a password by --auth"),
        (["--name", "https://shapes.example.org", "--auth", "me:password"], "must be a host's name"),
        (["--host", "0.0.0.0"], "ask them for a password by --auth"),
        (["--host", "::1"], "give an address of IPv4"),
    ],
)
def test_a_page_that_others_can_reach_asks_for_a_password(flags, words):
    assert words in refused(*flags)


@pytest.mark.parametrize("row", [1.5, "3", True, None, 10_000])
def test_a_pixel_that_is_none_is_refused_in_one_sentence(visitor, row):
    with pytest.raises(AppError, match=r"row|photograph"):
        visitor.predict(handle_file(str(CAT)), "cat", row, 200, 0.8, api_name="/affinity")


@pytest.fixture
def app(monkeypatch):
    """The module; its import changes the environment."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_ANALYTICS_MAX_EVENTS", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delitem(sys.modules, "app", raising=False)
    return importlib.import_module("app")


def test_an_event_has_at_most_one_answer_that_waits_for_the_one_before(app):
    """Two would have the page ask for ever: Gradio asks all again when one has ended that was asked meanwhile.

    What follows from an answer, from a value of the server or from the page's beginning is asked by itself.
    """
    page = app.build_page(app.Library(app.offered(app.DEFAULT_CHECKPOINT))).config
    kinds = {component["id"]: component["type"] for component in page["components"]}
    waiting = Counter(
        (kinds[target], target, event)
        for answer in page["dependencies"]
        for target, event in answer["targets"]
        if answer["trigger_mode"] == "always_last" and kinds.get(target, "state") != "state" and event != "load"
    )
    assert len(waiting) > 30 and max(waiting.values()) == 1, waiting.most_common(3)


def test_nothing_but_tabs_lies_among_the_tabs(app):
    """Gradio counts whatever lies there: a tab behind it would be drawn twice."""
    page = app.build_page(app.Library(app.offered(app.DEFAULT_CHECKPOINT)))
    (tabs,) = (block for block in page.blocks.values() if isinstance(block, gr.Tabs))
    assert len(tabs.children) == 9 and all(isinstance(child, gr.Tab) for child in tabs.children)


def test_without_any_checkpoint_the_page_has_its_shape_cues(app, cat, monkeypatch, capsys):
    monkeypatch.setattr(app, "DEFAULT_CHECKPOINT", Path("nowhere/animals"))
    library = app.Library(app.offered(app.DEFAULT_CHECKPOINT))
    app.build_page(library)
    assert "No checkpoint found" in capsys.readouterr().out and library.names == ["untrained"]
    predictor = library["untrained"]
    given = scene.Scene(predictor, predictor.encode(cat), [], None)
    shown = cues_tab._pictured(given, *cues_tab._values(Config()))
    assert len(shown) == 8 and shown[0].shape == cat.shape and shown[0].std() > 1
