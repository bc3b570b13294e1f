"""The Train and the Evaluate tab without a browser: the form, the commands, what is read from the folders."""

import argparse
import csv
import io
import json
import re
import shutil
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from analysis import commands, curves, evaluations, jobs, report, run_files, run_line, runs
from analysis.library import Library
from analysis.run_settings import settings_of
from analysis.tabs import evaluate as evaluate_tab
from analysis.tabs import evaluation_result, form, train
from analysis.tabs.subject import Subject
from wsss import UserError, checkpoint, evaluate
from wsss.config import Config
from wsss.data.source import read
from wsss.flags import add_flags, from_flags
from wsss.network import build
from wsss.presets import PRESETS, tiny

SMALL = replace(
    tiny(), encoder="test_efficientnet", encoder_weights="none", aspp_channels=8, decoder_channels=8, shape_channels=8
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder of runs of its own."""
    monkeypatch.setenv("WSSS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def run_of(name: str, rows: str = "", **content) -> runs.Found:
    """A run as a terminal leaves it."""
    folder = runs.folder_of(name)
    folder.mkdir(parents=True)
    known = {"status": "finished", "exit_code": 0, "start": time.time() - 100, "end": time.time(), "argv": []}
    (folder / "run.json").write_text(json.dumps(known | content))
    (folder / "metrics.jsonl").write_text(rows)
    return runs.known(name)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_form_of_a_preset_is_the_preset(preset):
    assert form.config_of(form.values_of(preset)) == PRESETS[preset]()


def test_the_settings_of_a_run_come_back_into_the_form():
    config = replace(tiny(), lr=0.005, region_loss=False)
    found = run_of("before", argv=commands.training_argv("tiny", config, runs.folder_of("before")))
    preset, name, data, *values = train._again(found.name)
    assert (preset, name, data) == ("tiny", "tiny-1", "") and form.config_of(values) == config


def test_the_settings_of_a_run_that_a_terminal_has_resumed_are_its_own(tmp_path):
    """Its command, `--out DIR --resume`, tells none of them."""
    config = replace(tiny(), lr=0.005, precision="float32", encoder_weights="w.pt")
    words = ["python", "-m", "wsss.train", "--out", "x", "--resume"]
    found = run_of("resumed", argv=words, cwd=str(tmp_path))
    checkpoint.save(found.folder / "states" / "step-000001", {}, config, ("a",))
    # The fastest format may be another one here, and the file lies where it lay.
    assert settings_of(found).config == replace(config, precision="auto", encoder_weights=str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "does not say how it was started"),
        (["python", "-m", "wsss.train", "--lr=much"], "its command cannot be read"),
        (["python", "-m", "wsss.train", "--lr=-1"], "lr must lie between"),
    ],
)
def test_a_run_whose_command_makes_no_sense_fills_no_form(argv, words):
    with pytest.raises(UserError, match=words):
        train._again(run_of("odd", argv=argv).name)


def test_each_setting_has_its_help_and_the_papers_value():
    with gr.Blocks():
        components = form.build("animals")
    assert [component.label for component in components] == [field.name for field in fields(Config)]
    by_name = {component.label: component for component in components}
    assert by_name["lr"].info.endswith("paper: 0.01") and by_name["lr"].value == 0.02
    assert by_name["workers"].info.endswith("default: 4")
    assert by_name["test_refine_steps"].info.endswith("paper: 0")
    for component, field in zip(components, fields(Config), strict=True):
        assert component.info.startswith(field.metadata["help"])


def test_what_is_called_the_papers_is_a_setting():
    assert {field.name for field in fields(Config)} >= form.STATED


@pytest.mark.parametrize("name", ["drop_rate", "info_relative", "refine_stride", "teacher", "ema_decay", "info_patch"])
def test_a_setting_on_which_the_paper_is_silent_is_not_called_its_own(name):
    (field,) = (field for field in fields(Config) if field.name == name)
    assert " · default: " in form.info(field)


@pytest.mark.parametrize("moved", [{}, {"background_cutoff": 0.8}, {"alpha": 0.5, "object_cutoff": 0.4}])
def test_the_command_of_a_form_asks_for_the_same_config(moved, tmp_path):
    changed = {"epochs": 3, "lr": 1e-5, "region_loss": False, "encoder": "test_efficientnet"} | moved
    config = replace(tiny(), **changed)
    argv = commands.training_argv("tiny", config, tmp_path / "out")
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    add_flags(parser)
    assert from_flags(parser.parse_args(argv[3:])) == config
    assert argv[:3] == [sys.executable, "-m", "wsss.train"]
    assert len(argv) == 5 + len(changed) + len(moved)  # only what differs from the preset is said, and where it starts


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("alpha", 2.0, "alpha must lie between 0 and 1, got 2"),
        ("epochs", 1.5, "epochs must be a whole number, got 1.5"),
        ("lr", float("nan"), "lr must be a finite number, got nan"),
        ("batch", None, "batch must be a whole number, got None"),
        ("shape_cue", "sideways", "shape_cue must be one of on, identity, none, got 'sideways'"),
    ],
)
def test_a_bad_setting_is_refused_in_the_words_of_the_command(name, value, words):
    names = [field.name for field in fields(Config)]
    values = [value if key == name else known for key, known in zip(names, form.values_of("tiny"), strict=True)]
    with pytest.raises(UserError, match=re.escape(words)):
        form.config_of(values)
    assert train._command("tiny", "run", "", *values) == f"# {words}"


def test_a_setting_cannot_become_another_flag(tmp_path):
    argv = commands.training_argv("tiny", replace(tiny(), encoder="--resume"), tmp_path)
    assert "--resume" not in argv and "--encoder=--resume" in argv


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "evaluations", "-x", "a" * 65, "a\0", None, 3, "ä"])
def test_a_name_that_is_not_one_folder_is_refused(name):
    with pytest.raises(UserError, match="a run's name has"):
        runs.folder_of(name)


def test_a_link_is_not_a_run(place, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    place.mkdir()
    (place / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        runs.folder_of("link")


@pytest.mark.parametrize(("data", "words"), [("", "read from a folder"), ("/no/such", "no such data folder")])
def test_data_must_be_a_folder_that_is_there(data, words, tmp_path):
    with pytest.raises(UserError, match=words):
        commands.training_argv("animals", PRESETS["animals"](), tmp_path, data)


def test_a_terminals_run_is_resumed_by_our_own_command(tmp_path):
    words = ["/bin/evil", "-m", "wsss.train", "--preset", "tiny", "--out", "elsewhere", "--data", "photos", "--resume"]
    found = run_of("one", argv=words, cwd=str(tmp_path))
    argv = commands.resumed_argv(found)
    assert argv[:4] == [sys.executable, "-m", "wsss.train", "--preset=tiny"]
    assert argv[4:] == [f"--data={tmp_path / 'photos'}", f"--out={found.folder}", "--resume"]
    with pytest.raises(UserError, match="does not say how it was started"):
        commands.resumed_argv(run_of("two", argv=["rm", "-m", "shutil", "-rf"]))


@pytest.mark.parametrize("begin", [["--begin-with", "runs/other"], ["--begin-with=runs/other"]])
def test_a_run_that_began_with_another_goes_on_with_its_own_state(begin):
    found = run_of("branch", argv=["python", "-m", "wsss.train", *begin, "--preset", "tiny", "--out", "elsewhere"])
    assert commands.resumed_argv(found)[3:] == ["--preset=tiny", f"--out={found.folder}", "--resume"]


def test_of_a_growing_log_only_the_newest_reading_is_kept(place):
    log = runs.folder_of("growing")
    log.mkdir(parents=True)
    for step in (1, 2, 3):
        with (log / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
        assert [row["step"] for row in run_files.metrics(log)] == list(range(1, step + 1))
    file = run_files._metrics_file(log / "metrics.jsonl")
    assert file.rows() is run_files.metrics(log) and file.rows() is file.rows()


def test_a_run_that_ended_is_deleted_and_one_that_may_run_is_not(place):
    found = run_of("one")
    (place / ".deleted-1-half" / "states").mkdir(parents=True)  # left by a server that was killed meanwhile
    jobs.delete(found)
    assert not list(place.iterdir())
    legacy = runs.folder_of("old")
    legacy.mkdir()
    (legacy / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="a moment ago"):
        jobs.delete(runs.known("old"))
    with pytest.raises(UserError, match="there is no run 'one' any more"):
        runs.known("one")


def test_a_run_of_a_terminal_is_in_the_table_with_its_settings_and_scores():
    rows = (
        '{"step": 5, "epoch": 1, "total": 0.5, "seconds": 65}\n{"step": 5, "epoch": 1, "seconds": 70, "miou": 0.31}\n'
    )
    found = run_of("one", rows, argv=["python", "-m", "wsss.train", "--preset", "tiny", "--lr", "0.1"], epochs=2)
    shown = dict(zip(run_line.COLUMNS, run_line.row_of(found), strict=True))
    assert (shown["run"], shown["state"], shown["preset"]) == ("one", "finished (terminal)", "tiny")
    assert (shown["epoch"], shown["of"], shown["mIoU"], shown["loss"]) == (1, 2, 31.0, 0.5)
    assert (shown["took"], shown["settings"]) == ("00:01:10", "lr=0.1")


def test_what_did_not_change_is_not_drawn_again():
    run_of("one", '{"step": 1, "epoch": 1, "total": 0.5}\n')
    first = train._refresh(None, [], 1, False, {})
    again = train._refresh("one", [], 1, False, first.seen)
    assert first.watched.value == "one" and first.curves.data
    assert all(part == gr.skip() for part in again[:-1])
    with (runs.folder_of("one") / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "epoch": 1, "total": 0.4}\n')
    held = train._refresh("one", [], 1, True, again.seen)
    assert held.curves == gr.skip()
    assert train._refresh("one", [], 1, False, held.seen).curves.data[0].y[-1] == 0.4
    run_of("two", '{"step": 1, "epoch": 1, "total": 0.9}\n')
    assert train._refresh("two", [], 1, True, held.seen).curves.data[0].y[-1] == 0.9, "another run's are not held"


def test_without_a_run_no_empty_axes_are_drawn():
    assert train._refresh(None, [], 1, False, {}).curves is None


def test_previews_stand_in_the_order_of_their_epochs():
    found = run_of("long")
    for epoch in ("09", "11", "100", "of_mine"):
        (found.folder / "previews" / f"epoch_{epoch}").mkdir(parents=True)
    assert list(runs.previews(found.folder)) == [9, 11, 100]
    shown = {epoch: train._previews("long", epoch).label for epoch in (1, 10, 11, 99, 1000)}
    assert [words.rsplit(" ", 1)[1] for words in shown.values()] == ["9", "9", "11", "11", "100"]
    view = train._refresh(None, [], 1, False, {})
    assert (view.epoch.maximum, view.epoch.value) == (100, 100)


def test_a_run_that_is_opened_again_is_looked_at_again(shipped_or_fresh):
    shutil.copytree(shipped_or_fresh, run_of("one").folder / "best")
    with gr.Blocks() as page:
        subject = Subject(Library([shipped_or_fresh]))
        with gr.Tabs() as tabs:
            train.build(subject, page, tabs)
        subject.watch(page)
    (opened,) = (event for event in page.fns.values() if event.api_name == "train_open")
    assert opened.fn("one", "animals")[1] == gr.skip(), "the dropdown changes, and that tells it"
    first, second = (opened.fn("one", "runs/one")[1] for _ in range(2))
    assert first != second
    (accepted,) = (event for event in page.fns.values() if event.api_name == "photograph")
    assert (subject.reopened._id, "change") in accepted.targets


def test_an_evaluation_knows_the_folder_that_its_command_reads(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluations, "checkpoint_folder", lambda chosen, library: tmp_path)
    monkeypatch.setattr(evaluations, "dataset_of", lambda folder: "voc")
    started = []
    monkeypatch.setattr(jobs, "start", lambda out, argv, **facts: started.append((argv, facts["data"])))
    evaluate_tab._begin_by(Library([]))("mine", " photos ", "the checkpoint's", "val", "none", False)
    ((argv, data),) = started
    assert data == str(tmp_path / "photos") and f"--data={data}" in argv
    assert "--dataset=voc" in argv and "--no-spr" in argv and "--crf" not in argv


def test_names_and_errors_are_escaped():
    found = run_of("one", status="failed", exit_code=2, error="<img src=x onerror=alert(1)>")
    shown = run_line.status_html(found)
    assert "<img" not in shown and "&lt;img" in shown


def test_curves_of_several_runs_lie_over_each_other_and_stay_small():
    log = [{"step": step, "total": 1 / (step + 1), "miou": 0.5} for step in range(5000)]
    figure = curves.training_curves({"one": log, "two": log[:10]})
    assert {line.name for line in figure.data} == {
        f"{run}: {what}" for run in ("one", "two") for what in ("sum", "mIoU")
    }
    assert max(len(line.x) for line in figure.data) == curves.MOST_POINTS and figure.data[0].x[-1] == 4999


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """An evaluation as its job leaves it: the report, the masks, and what was evaluated."""
    out = tmp_path_factory.mktemp("runs") / "evaluations" / "one"
    model, classes = out.parent.parent / "model", read("shapes", None, "val").classes
    torch.manual_seed(0)
    network = build(SMALL, len(classes) + 1, pretrained=False)
    with torch.no_grad():  # classes win by turns, so that the mask holds several
        network.decoder.layers[-1].weight.mul_(50)
    checkpoint.save(model, network.state_dict(), SMALL, classes)
    out.mkdir(parents=True)
    argv = commands.evaluation_argv(model, "shapes", "", "val", out, refined_by="SPR", multi_scale=False)
    assert evaluate.main(argv[3:]) == 0
    facts = {"kind": "evaluation", "dataset": "shapes", "data": "", "split": "val", "exit_code": 0, "start": 1.0}
    (out / "job.json").write_text(json.dumps(facts))
    return out


@pytest.fixture
def report_here(evaluated, monkeypatch) -> dict:
    monkeypatch.setenv("WSSS_RUNS", str(evaluated.parent.parent))
    return evaluations.report_of("one")


def test_a_report_has_a_row_for_each_photograph(report_here):
    assert len(report_here["images"]) == report_here["photographs"] == 40
    ordered = [row["miou"] for row in report.worst_first(report_here)]
    assert ordered == sorted(ordered) and ordered[0] < ordered[-1]


def test_the_pictures_of_a_photograph_show_where_it_is_wrong(report_here):
    source = read("shapes", None, "val")
    seen, truth = evaluations.pictures_of("one", source.names[3]), source.mask(3)
    assert np.array_equal(seen.photograph, source.rgb(3))
    accuracy = next(row["accuracy"] for row in report_here["images"] if row["name"] == source.names[3])
    reddish = (seen.error[..., 0] > seen.error[..., 1].astype(int) + 60).mean()
    assert reddish == pytest.approx(1 - accuracy, abs=1e-6) and truth.shape == seen.error.shape[:2]
    with pytest.raises(UserError, match="no photograph of this split"):
        evaluations.pictures_of("one", "../../secret")


def test_the_exports_hold_every_score(report_here):
    lines = list(csv.DictReader(io.StringIO(report.csv_text(report_here))))
    kinds = [line["kind"] for line in lines]
    assert (kinds.count("class"), kinds.count("mean"), kinds.count("image")) == (5, 1, 40)
    assert json.loads(report.json_text(report_here)) == report_here
    seen = evaluations.pictures_of("one", report_here["images"][0]["name"])
    page = report.html_text(report_here | {"split": "<b>val</b>"}, "a <script> name", [("one", seen)])
    assert "<script" not in page and "http" not in page and "<b>val" not in page
    assert page.count("data:image/jpeg;base64,") == 4 and "disk" in page


def test_two_evaluations_stand_side_by_side(report_here):
    shown = evaluation_result.shown("one", "one", "recall", None)
    assert all(part == gr.skip() for part in evaluation_result.shown("one", "one", "recall", shown.drawn))
    assert len(shown.bars.data) == 1 and shown.other.visible is False
    both = curves.class_bars({"left": report_here, "right": report_here}, "boundary_iou")
    assert [bars.name for bars in both.data] == ["left", "right"] and len(both.data[0].x) == 5
    assert "+0.0" in evaluation_result._headline({"left": report_here, "right": report_here})
    assert list(evaluation_result._table(report_here, report_here).columns)[-1] == "mIoU of the other"


def test_a_spreadsheet_runs_nothing_of_a_name(report_here):
    strange = report_here | {"images": [report_here["images"][0] | {"name": "=cmd()"}]}
    assert "\nimage,'=cmd()," in report.csv_text(strange)


def test_only_a_checkpoint_can_be_evaluated(tmp_path):
    with pytest.raises(UserError, match="is no checkpoint"):
        evaluations.checkpoint_folder(str(tmp_path), Library([]))
    with pytest.raises(UserError, match="no user of that name"):
        evaluations.checkpoint_folder("~nobody-of-that-name/best", Library([]))
    assert evaluations.free_name("runs/a b (best)", "val") == "a-b-best-val"


def test_what_the_page_looks_at_is_offered_first(shipped_or_fresh, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(shipped_or_fresh, mine)
    offered = evaluations.checkpoints(Library([mine, shipped_or_fresh]))
    assert list(offered)[:2] == ["mine", shipped_or_fresh.name]
    assert evaluations.checkpoint_folder("mine", Library([mine])) == mine


def test_a_run_of_another_machine_is_not_taken_for_a_dead_one(place):
    (place / "far").mkdir(parents=True)
    told = {"status": "running", "host": "node17", "pid": 4, "create_time": 1.0, "start": 2.0}
    (place / "far" / "run.json").write_text(json.dumps(told))
    found = runs.known("far")
    assert found.status == "unknown" and "node17" in found.error
    with pytest.raises(UserError, match="may still run"):
        jobs.delete(found)
    assert (place / "far" / "run.json").exists()


def test_a_data_folder_that_cannot_be_is_refused_in_words():
    for typed in ("~nobody-of-that-name/voc", "/x" * 3000):
        with pytest.raises(UserError, match="no user of that name|cannot be read"):
            commands.data_folder(typed)


def whole_report(*classes: str) -> dict:
    """An evaluation's, with nothing in it but the classes."""
    return dict.fromkeys(evaluations._NEEDED) | {"classes": classes}


def test_a_data_set_that_has_changed_is_read_anew_for_another_evaluation(tmp_path, monkeypatch):
    monkeypatch.setenv("WSSS_RUNS", str(tmp_path))
    data, out = tmp_path / "data", runs.folder_of("one", evaluation=True)
    (data / "images").mkdir(parents=True)
    out.mkdir(parents=True)
    facts = {"kind": "evaluation", "dataset": "folder", "data": str(data), "split": "val", "exit_code": 0, "start": 1.0}
    (out / "job.json").write_text(json.dumps(facts))
    rows = "image,labels,split\n"
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(data / "images" / name)
        rows += f"{name},cat,val\n"
        (data / "labels.csv").write_text(rows)
        (out / runs.REPORT).write_text(json.dumps(whole_report("background", "cat") | {"of": name}))
        assert evaluations.judged("one", name.removesuffix(".png"))[1:] == (None, ("cat",))


def test_an_evaluation_that_the_page_has_not_started_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("WSSS_RUNS", str(tmp_path))
    out = runs.folder_of("copied", evaluation=True)
    out.mkdir(parents=True)
    (out / runs.REPORT).write_text(json.dumps(whole_report("background", "cat")))
    for ask in (evaluations.job_of, lambda name: evaluations.pictures_of(name, "a")):
        with pytest.raises(UserError, match="copied: was not started from this page"):
            ask("copied")


def test_the_truth_of_other_classes_is_in_those_of_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("WSSS_RUNS", str(tmp_path))
    data, out = tmp_path / "data", runs.folder_of("one", evaluation=True)
    for folder in (data / "images", data / "masks", out):
        folder.mkdir(parents=True)
    Image.new("RGB", (3, 1)).save(data / "images" / "a.png")
    (data / "labels.csv").write_text("image,labels\na.png,dog;truck\n")
    (data / "classes.txt").write_text("truck\ndog\n")
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(data / "masks" / "a.png")
    facts = {"kind": "evaluation", "dataset": "folder", "data": str(data), "split": "val", "exit_code": 0, "start": 1.0}
    (out / "job.json").write_text(json.dumps(facts))
    (out / runs.REPORT).write_text(json.dumps(whole_report("background", "dog", "cat")))
    _, truth, classes = evaluations.judged("one", "a")
    assert classes == ("dog", "cat") and truth.tolist() == [[0, 0, 1]]


def test_the_settings_of_a_terminals_run_name_its_data_from_anywhere(tmp_path):
    words = ["python", "-m", "wsss.train", "--preset", "tiny", "--dataset=folder", "--data", "photos", "--out", "x"]
    found = run_of("elsewhere", argv=[*words, "--masks=made", "--supervision=masks"], cwd=str(tmp_path))
    given = settings_of(found)
    assert (given.data, given.config.masks) == (str(tmp_path / "photos"), str(tmp_path / "made"))
    assert f"--masks={tmp_path / 'made'}" in commands.resumed_argv(found)
    found = run_of("fresh", argv=["python", "-m", "wsss.train", "--encoder-weights", "none"], cwd=str(tmp_path))
    assert commands.resumed_argv(found)[3] == "--encoder-weights=none"
