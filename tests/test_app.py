"""The running app, asked over HTTP."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from analysis.predictor import Predictor
from analysis.tabs.words import in_words
from wsss.data.item import read_rgb

ROOT = Path(__file__).parent.parent
CAT = ROOT / "analysis" / "examples" / "chelsea.jpg"
SLIDERS = (0.55, 0, 0.8, 10, 0.6, 0.7)  # opacity, confidence, alpha, T, the two thresholds


@pytest.fixture
def visitor(address) -> Client:
    return Client(address, verbose=False)


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_photograph_gets_every_answer(visitor):
    present, pair, legend, pseudo, pseudo_legend, information, nats, bars = visitor.predict(
        handle_file(str(CAT)), *SLIDERS, api_name="/analyse"
    )
    assert isinstance(present["value"], list) and present["value"]
    assert {size_of(path) for path in (*pair, pseudo, information)} == {(451, 300)}
    assert "background" in legend and "nats" in nats and pseudo_legend
    assert "cat" in str(bars)


def test_sliders_answer_for_the_visitors_own_photograph(visitor, address, tmp_path):
    wide = tmp_path / "wide.png"
    Image.new("RGB", (200, 64), "green").save(wide)
    other = Client(address, verbose=False)
    visitor.predict(handle_file(str(CAT)), *SLIDERS, api_name="/analyse")
    other.predict(handle_file(str(wide)), *SLIDERS, api_name="/analyse")
    for client, size in ((visitor, (451, 300)), (other, (200, 64))):
        picture, _ = client.predict(["cat"], 1.0, 3, 0.5, 0.7, api_name="/pseudo")
        assert size_of(picture) == size


def test_moving_t_changes_the_pseudo_mask(visitor):
    visitor.predict(handle_file(str(CAT)), *SLIDERS, api_name="/analyse")
    first, second = (
        np.asarray(Image.open(visitor.predict(["cat"], 0.8, steps, 0.6, 0.7, api_name="/pseudo")[0]))
        for steps in (0, 20)
    )
    assert not np.array_equal(first, second)


def test_the_interface_for_others_is_three_questions(visitor):
    offered = visitor.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(offered) == {"/segment", "/self_information", "/refine"}


def test_the_interface_gives_what_the_predictor_gives(visitor, shipped_or_fresh):
    predictor = Predictor.from_checkpoint(shipped_or_fresh)
    encoding = predictor.encode(read_rgb(CAT))
    mask, areas = visitor.predict(handle_file(str(CAT)), 0.5, api_name="/segment")
    assert np.array_equal(np.asarray(Image.open(mask)), predictor.mask(encoding, 0.5))
    assert sum(areas.values()) == pytest.approx(1)
    pseudo, _ = visitor.predict(handle_file(str(CAT)), ["cat", "dog"], 0.3, 7, 0.5, 0.6, api_name="/refine")
    settings = {"alpha": 0.3, "steps": 7, "object_cutoff": 0.5, "background_cutoff": 0.6}
    assert np.array_equal(np.asarray(Image.open(pseudo)), predictor.pseudo(encoding, ("cat", "dog"), **settings))
    _, nats = visitor.predict(handle_file(str(CAT)), api_name="/self_information")
    assert nats["greatest"] == pytest.approx(encoding.information.max(), rel=1e-4)


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


def test_a_page_elsewhere_whose_name_leads_here_is_refused(address):
    assert httpx.get(address).status_code == 200
    assert httpx.get(address, headers={"Host": "elsewhere.example"}).status_code == 400


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jpg", b"", "is empty"),
        ("text.png", b"hello", "is not a picture of a known format"),
        ("cut.jpg", CAT.read_bytes()[:3000], "cannot be read as a picture"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture of a known format"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(visitor, tmp_path, name, content, words):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(AppError, match=f"This image cannot be used: it {words}") as refused:
        visitor.predict(handle_file(str(file)), *SLIDERS, api_name="/analyse")
    assert str(tmp_path) not in str(refused.value) and "gradio" not in str(refused.value)


def test_a_bomb_is_refused_before_it_is_decoded(visitor, tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (12_000, 12_000)).save(bomb)
    with pytest.raises(AppError, match="has 12000x12000 pixels, more than 40 million"):
        visitor.predict(handle_file(str(bomb)), *SLIDERS, api_name="/analyse")


def test_the_app_still_answers_afterwards(visitor):
    assert visitor.predict(handle_file(str(CAT)), *SLIDERS, api_name="/analyse")


def start(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "app.py", *flags], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )


def test_a_missing_checkpoint_is_one_sentence(tmp_path):
    result = start("--checkpoint", str(tmp_path / "nothing"))
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and "is not a checkpoint folder" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_busy_port_is_one_sentence(shipped_or_fresh):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = start("--checkpoint", str(shipped_or_fresh), "--port", str(taken.getsockname()[1]))
    assert result.returncode == 2
    assert "choose another" in result.stderr and "Traceback" not in result.stderr
