"""The commands: what they write, and one sentence with exit code 2 for every mistake of the user."""

import ctypes
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import write_lively, write_pictures
from PIL import Image
from reliability import Child

import wsss.train
from analysis import timing
from analysis.serving import serving
from wsss import UserError, checkpoint, evaluate, predict, pseudo_labels, train
from wsss.config import Config
from wsss.data.picture import read_rgb
from wsss.data.shapes import Shapes
from wsss.data.source import read
from wsss.data.voc import mask_values
from wsss.distributed import joined, pick_device
from wsss.mask_files import overlaid
from wsss.network import build
from wsss.presets import tiny
from wsss.state import newest_whole

ROOT = Path(__file__).parent.parent
SMALL = replace(
    tiny(), encoder="test_efficientnet", encoder_weights="none", aspp_channels=8, decoder_channels=8, shape_channels=8
)
ANIMALS = ("cat", "cow", "dog", "horse", "person", "sheep")


@pytest.fixture(scope="module")
def shapes_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "model"
    classes = read("shapes", None, "val").classes
    torch.manual_seed(0)
    checkpoint.save(folder, build(SMALL, len(classes) + 1, pretrained=False).state_dict(), SMALL, classes)
    return folder


@pytest.fixture(scope="module")
def animals_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("animals") / "model"
    torch.manual_seed(0)
    network = build(SMALL, 7, pretrained=False)
    with torch.no_grad():  # classes win by turns, so that the mask holds several
        network.decoder.layers[-1].weight.mul_(50)
    checkpoint.save(folder, network.state_dict(), SMALL, ANIMALS)
    return folder


@pytest.fixture
def photographs(tmp_path):
    random = np.random.default_rng(0)
    paths = []
    for name, size in (("one.jpg", (40, 60)), ("two.png", (33, 21))):
        path = tmp_path / name
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


def refusal(capsys) -> str:
    """What was printed to stderr: one sentence, no traceback."""
    text = capsys.readouterr().err
    assert text.startswith("error: ") and "Traceback" not in text
    return text


def test_predict_writes_a_palette_mask_of_the_photographs_size(animals_model, photographs, tmp_path):
    out = tmp_path / "masks"
    assert predict.main([*photographs, "--checkpoint", str(animals_model), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "two.png"]
    for name, size in (("one", (60, 40)), ("two", (21, 33))):
        with Image.open(out / f"{name}.png") as mask:
            assert (mask.mode, mask.size) == ("P", size)
            assert set(np.unique(np.array(mask))) <= {0, 8, 10, 12, 13, 15, 17}  # VOC's indices
            assert mask.getpalette()[8 * 3 : 8 * 3 + 3] == [64, 0, 0]  # VOC's color of a cat


def test_predict_writes_the_overlays_and_probabilities_that_are_asked_for(animals_model, photographs, tmp_path):
    out = tmp_path / "masks"
    argv = [*photographs, "--checkpoint", str(animals_model), "--out", str(out), "--overlays", "--probs"]
    assert predict.main(argv) == 0
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "overlays", "probs", "two.png"]
    for name, path in zip(("one", "two"), photographs, strict=True):
        mask = np.array(Image.open(out / f"{name}.png"))
        saved = np.load(out / "probs" / f"{name}.npz")
        classes = tuple(saved["classes"])
        assert classes[:2] == ("background", "cat") and saved["probs"].shape == (len(classes), *mask.shape)
        indices = saved["probs"].argmax(0)
        np.testing.assert_array_equal(np.array(mask_values(classes[1:]))[indices], mask)
        with Image.open(out / "overlays" / f"{name}.png") as overlay:
            np.testing.assert_array_equal(np.array(overlay), overlaid(read_rgb(Path(path)), indices, classes[1:]))


def test_predict_does_not_replace_a_photograph_by_an_overlay(animals_model, photographs, tmp_path, capsys):
    (tmp_path / "overlays").mkdir()
    given = tmp_path / "overlays" / "two.png"
    shutil.copy(photographs[1], given)
    argv = [str(given), "--checkpoint", str(animals_model), "--out", str(tmp_path)]
    assert predict.main([*argv, "--overlays"]) == 2
    assert "overlays/two.png: is one of the given files" in refusal(capsys)
    assert given.read_bytes() == Path(photographs[1]).read_bytes()


def test_predict_with_a_broken_photograph_writes_nothing(animals_model, photographs, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    out = tmp_path / "masks"
    assert predict.main([photographs[0], str(broken), "--checkpoint", str(animals_model), "--out", str(out)]) == 2
    assert "broken.jpg" in refusal(capsys)
    assert not out.exists()


def test_predict_takes_a_folder_and_leaves_out_what_is_broken_if_asked_to(animals_model, photographs, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no picture by its name")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    out, empty = tmp_path / "masks", tmp_path / "empty"
    empty.mkdir()
    argv = [str(tmp_path), "--checkpoint", str(animals_model), "--out", str(out)]
    assert predict.main(argv) == 2 and not out.exists()
    assert "broken.jpg" in refusal(capsys)
    assert predict.main([*argv, "--skip-bad"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "two.png"]
    assert "left out: " in (said := capsys.readouterr().err) and "broken.jpg" in said
    for given, words in ((str(empty), "holds no picture"), (str(tmp_path / "broken.jpg"), "none of the pictures")):
        assert predict.main([given, *argv[1:], "--skip-bad"]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(("out", "code"), [("file", 2), ("/proc/masks", 4)])
def test_predict_tells_a_file_in_the_folders_place_from_a_disk_that_cannot_be_written(
    out, code, animals_model, photographs, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    argv = [*photographs, "--checkpoint", str(animals_model), "--out", str(tmp_path / out)]
    assert predict.main([*argv, "--overlays", "--probs"]) == code
    assert ("is a file" if code == 2 else "cannot be written") in refusal(capsys)


@pytest.mark.parametrize("out", [".", "linked"])
def test_predict_does_not_replace_a_photograph_by_its_mask(out, animals_model, photographs, tmp_path, capsys):
    (tmp_path / "linked").symlink_to(tmp_path)
    before = sorted((path, path.read_bytes()) for path in tmp_path.glob("*.*"))
    assert predict.main([*photographs, "--checkpoint", str(animals_model), "--out", str(tmp_path / out)]) == 2
    assert "two.png: is one of the given files" in refusal(capsys)
    assert sorted((path, path.read_bytes()) for path in tmp_path.glob("*.*")) == before


@pytest.mark.parametrize("twin", ["other/one.jpg", "one.png", "one.jpg"])
def test_predict_refuses_two_photographs_whose_masks_would_be_one_file(
    twin, animals_model, photographs, tmp_path, capsys
):
    first, second = photographs[0], tmp_path / twin
    second.parent.mkdir(exist_ok=True)
    if not second.exists():
        shutil.copy(first, second)
    flags = ["--checkpoint", str(animals_model), "--out", str(tmp_path / "masks")]
    assert predict.main([first, str(second), *flags]) == 2
    assert refusal(capsys).startswith(f"error: {first} and {second} would have one mask, one.png:")


@pytest.mark.parametrize("command", [predict.main, evaluate.main])
def test_a_missing_checkpoint_is_one_sentence(command, photographs, tmp_path, capsys):
    extra = [photographs[0], "--out", str(tmp_path / "masks")] if command is predict.main else []
    assert command([*extra, "--checkpoint", str(tmp_path / "nothing")]) == 2
    assert "is not a checkpoint folder" in refusal(capsys)


def test_evaluate_reports_every_score(shapes_model, tmp_path, capsys):
    file = tmp_path / "report.json"
    assert evaluate.main(["--checkpoint", str(shapes_model), "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["photographs"] == 40 and report["image_labels_used"] is False
    assert {"miou", "mean_boundary_iou", "accuracy", "classes", "confusion"} <= report.keys()
    assert "mIoU" in capsys.readouterr().out


def test_evaluate_names_a_missing_folder_of_the_report_before_it_begins(shapes_model, tmp_path, capsys):
    assert evaluate.main(["--checkpoint", str(shapes_model), "--json", str(tmp_path / "no" / "r.json")]) == 2
    assert "no such folder for the report" in refusal(capsys)


def test_evaluate_names_a_folder_in_the_reports_place_before_it_begins(shapes_model, tmp_path, capsys):
    assert evaluate.main(["--checkpoint", str(shapes_model), "--json", str(tmp_path)]) == 2
    assert f"{tmp_path}: is a folder, the report needs the name of a file" in refusal(capsys)


def test_a_report_that_cannot_be_written_ends_as_a_full_disk_does_and_its_scores_are_told(
    shapes_model, tmp_path, capsys, monkeypatch
):
    # A file cannot take the place of a folder, which came while it was evaluated.
    evaluated = evaluate._evaluate
    monkeypatch.setattr(evaluate, "_evaluate", lambda given: ((tmp_path / "r.json").mkdir(), evaluated(given))[1])
    assert evaluate.main(["--checkpoint", str(shapes_model), "--json", str(tmp_path / "r.json")]) == 4
    said = capsys.readouterr()
    assert "r.json: cannot be written" in said.err and "mIoU" in said.out
    assert [*tmp_path.iterdir()] == [tmp_path / "r.json"]


@pytest.fixture
def own_cat(tmp_path):
    """A user's own photograph with its mask and, in model/, a network for them."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.new("RGB" if name == "images" else "L", (32, 32)).save(tmp_path / name / "a.png")
    (tmp_path / "labels.csv").write_text("image,labels\na.png,cat\n")
    config = replace(SMALL, dataset="folder")
    checkpoint.save(tmp_path / "model", build(config, 2, pretrained=False).state_dict(), config, ("cat",))
    return tmp_path


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_evaluate_does_not_replace_the_data_by_its_masks(folder, own_cat, capsys):
    before = (own_cat / folder / "a.png").read_bytes()
    flags = ["--checkpoint", str(own_cat / "model"), "--data", str(own_cat), "--masks", str(own_cat / folder)]
    assert evaluate.main(flags) == 2
    assert "a.png: is one of the given files" in refusal(capsys)
    assert (own_cat / folder / "a.png").read_bytes() == before


@pytest.mark.parametrize("folder", ["images", "masks", "linked"])
def test_training_masks_are_not_written_among_the_data(folder, own_cat, capsys):
    (own_cat / "linked").symlink_to(own_cat / "masks")
    flags = ["--checkpoint", str(own_cat / "model"), "--data", str(own_cat), "--out", str(own_cat / folder)]
    assert pseudo_labels.main(flags) == 2
    assert f"{own_cat / folder}: holds photographs or masks of the data" in refusal(capsys)
    assert [path.name for path in (own_cat / folder).iterdir()] == ["a.png"]


def test_evaluate_says_so_when_image_labels_are_used(shapes_model, capsys):
    assert evaluate.main(["--checkpoint", str(shapes_model), "--with-image-labels"]) == 0
    assert "not a test score" in capsys.readouterr().out


def test_evaluate_refuses_data_of_other_classes(animals_model, capsys):
    assert evaluate.main(["--checkpoint", str(animals_model)]) == 2
    assert "the checkpoint knows cat, cow" in refusal(capsys)


def test_evaluate_judges_data_of_another_layout_by_the_names_of_their_classes(tmp_path, capsys):
    pictures = Shapes(2, 1, (64, 72))
    write_pictures(tmp_path / "data", pictures, ["val", "val"])
    write_lively(tmp_path / "model", pictures, test_refine_steps=0)
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    common = ["--checkpoint", str(tmp_path / "model"), "--data", str(tmp_path / "data")]
    assert evaluate.main([*common, "--json", str(own)]) == 0
    assert evaluate.main([*common, "--dataset", "voc"]) == 2
    assert "holds no VOC data" in capsys.readouterr().err
    # The same picture, in which the first class is called otherwise now, and so is background.
    for file in ("labels.csv", "classes.txt"):
        path = tmp_path / "data" / file
        path.write_text(path.read_text().replace(pictures.classes[0], "unicorn"))
    assert evaluate.main([*common, "--dataset", "folder", "--json", str(other)]) == 0
    assert "so background: unicorn" in capsys.readouterr().err
    before, after = (np.array(json.loads(path.read_text())["confusion"]) for path in (own, other))
    expected = before.copy()
    expected[0] += expected[1]
    expected[1] = 0
    np.testing.assert_array_equal(after, expected)


def test_evaluate_judges_photographs_without_a_class(tmp_path):
    pictures = Shapes(2, 1, (64, 72))
    write_pictures(tmp_path, pictures, ["val", "val"])
    write_lively(tmp_path / "model", pictures, test_refine_steps=0)
    table = tmp_path / "labels.csv"
    table.write_text("image,labels,split\n" + "".join(f"{name}.png,,val\n" for name in pictures.names))
    report = tmp_path / "report.json"
    assert evaluate.main(["--checkpoint", str(tmp_path / "model"), "--data", str(tmp_path), "--json", str(report)]) == 0
    assert json.loads(report.read_text())["photographs"] == 2


def test_evaluate_names_all_faults_and_goes_on_without_them_if_it_may(tmp_path, capsys):
    pictures = Shapes(4, 1, (64, 72))
    write_pictures(tmp_path, pictures, ["val"] * 4)
    write_lively(tmp_path / "model", pictures, test_refine_steps=0)
    names, report = pictures.names, tmp_path / "report.json"
    (tmp_path / "masks" / f"{names[1]}.png").write_bytes(b"no picture")
    with (tmp_path / "labels.csv").open("a") as table:
        table.write("gone.png,,val\n")
    flags = ["--checkpoint", str(tmp_path / "model"), "--data", str(tmp_path), "--json", str(report)]
    assert evaluate.main(flags) == 2
    said = capsys.readouterr().err
    assert "the data have 2 faults" in said and f"{names[1]}.png: is not a picture" in said and "'gone.png'" in said
    assert evaluate.main([*flags, "--skip-bad"]) == 0
    found = json.loads(report.read_text())
    assert (found["photographs"], found["skipped"]) == (3, 2)


def test_evaluate_names_a_split_that_is_not_there(shapes_model, capsys):
    assert evaluate.main(["--checkpoint", str(shapes_model), "--split", "tset"]) == 2
    assert "'tset'" in refusal(capsys)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--preset", "animals"], "is read from a folder"),
        (["--preset", "animals", "--data", "/no/such/folder"], "no such data folder"),
        (["--preset", "tiny", "--alpha", "2"], "alpha must lie between 0 and 1"),
        (["--preset", "tiny", "--encoder", "resnet-fifty"], "no encoder 'resnet-fifty'"),
        (["--preset", "tiny", "--encoder", "wrn38"], "--encoder-weights"),
        (["--preset", "tiny", "--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--preset", "tiny", "--resume"], "holds no state to resume from"),
    ],
)
def test_a_mistake_in_training_flags_is_one_sentence(flags, words, tmp_path, capsys):
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 2
    assert words in refusal(capsys)
    assert not list(tmp_path.glob("run/states/*")) and not (tmp_path / "run" / "metrics.csv").exists()


def test_an_unknown_flag_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(["--learning-rat", "1"])
    assert "--learning-rat" in capsys.readouterr().err


def test_without_a_list_to_validate_on_no_mask_is_needed(tmp_path):
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(np.full((40, 40, 3), 60 * number, np.uint8)).save(data / "images" / f"p{number}.png")
    rows = [f"p{number}.png,{('cat', 'dog')[number % 2]}" for number in range(4)]
    (data / "labels.csv").write_text("\n".join(["image,labels", *rows]) + "\n")
    flags = ["--preset", "tiny", "--dataset", "folder", "--data", str(data), "--val-split", "none", "--crop", "32"]
    flags += ["--encoder", "test_efficientnet", "--encoder-weights", "none", "--epochs", "2", "--warmup-epochs", "1"]
    assert train.main([*flags, "--precision", "float32", "--out", str(tmp_path / "run")]) == 0
    assert checkpoint.load(tmp_path / "run" / "model").classes == ("cat", "dog")


def test_a_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "run" / "states" / "step-000000").mkdir(parents=True)
    assert train.main(["--preset", "tiny", "--out", str(tmp_path / "run")]) == 2
    assert "holds a run already" in refusal(capsys)


def test_a_run_whose_first_state_found_a_full_disk_can_be_started_again(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flags = ["--preset", "tiny", "--encoder", "test_efficientnet", "--encoder-weights", "none"]
    flags += ["--precision", "float32", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        assert train.main(flags) == 4
    assert "is full" in refusal(capsys)
    monkeypatch.setattr(wsss.train, "train", lambda *_, **__: 0)
    assert train.main(flags) == 0


def test_a_resumed_run_keeps_its_settings(tmp_path, capsys):
    checkpoint.save(tmp_path / "states" / "step-000001", {}, Config(), ("a",))
    assert train.main(["--preset", "tiny", "--resume", "--out", str(tmp_path), "--lr", "0.5"]) == 2
    assert "the run has lr 0.01, it cannot be resumed with 0.5" in refusal(capsys)


def test_a_resumed_run_takes_masks_that_were_moved_and_needs_no_preset(tmp_path, monkeypatch):
    config = replace(tiny(), supervision="masks", masks="before", teacher="average", ema_decay=0.9)
    checkpoint.save(tmp_path / "states" / "step-000001", {}, config, ("a",))
    flags = ["--resume", "--teacher", "average", "--masks", "after"]  # the paper's preset has no average
    monkeypatch.setattr(wsss.train, "survey_splits", lambda config, root: pytest.fail(config.masks))
    with pytest.raises(pytest.fail.Exception, match="^after$"):
        train.main([*flags, "--out", str(tmp_path)])


def test_a_command_that_torchrun_repeats_goes_on_with_its_own_run_alone(tmp_path, capsys, monkeypatch):
    """One that was refused since the folder holds another's run is repeated too."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    checkpoint.save(tmp_path / "states" / "step-000001", {}, tiny(), ("a",))
    assert train.main(["--preset", "animals", "--out", str(tmp_path)]) == 2
    assert "cannot be resumed with" in refusal(capsys)
    monkeypatch.setattr(wsss.train, "survey_splits", lambda config, root: pytest.fail("goes on"))
    with pytest.raises(pytest.fail.Exception, match="goes on"):
        train.main(["--preset", "tiny", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--preset", "voc", "--data", "."], "--encoder-weights none"),
        (["--preset", "voc"], "the layout 'voc' is read from a folder; give one"),
        (["--preset", "voc", "--data", "nowhere"], "nowhere: no such data folder"),
        (["--preset", "voc", "--data", ".", "--encoder", "resnet-fifty"], "there is no encoder 'resnet-fifty'"),
        (["--preset", "tiny", "--encoder-weights", "nowhere.pt"], "nowhere.pt: there is no such file"),
        (["--preset", "tiny", "--encoder-weights", "n" * 300], "cannot be read (File name too long)"),
        (
            ["--preset", "tiny", "--aspp-channels", "4096", "--decoder-channels", "4096"],
            "at most 2 GiB can be read back",
        ),
        (["--preset", "tiny", "--device", "meta"], "device 'meta' cannot be used here"),
        (["--preset", "tiny", "--device", "hpu"], "device 'hpu' cannot be used here"),
    ],
)
def test_what_training_needs_is_said_before_the_data_are_looked_at(flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wsss.train, "survey_splits", lambda config, root: pytest.fail("looks at the data"))
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 2
    assert words in refusal(capsys)
    assert not (tmp_path / "run").exists()


def test_a_run_that_will_learn_no_mask_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wsss.train, "train", lambda *_, **__: 0)
    flags = ["--preset", "tiny", "--epochs", "2", "--warmup-epochs", "2", "--out", str(tmp_path / "run")]
    assert train.main(flags) == 0
    assert "warning: all 2 epochs are a warm-up of 2" in capsys.readouterr().err


def test_a_process_that_does_not_know_its_number_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.main(["--preset", "tiny", "--out", str(tmp_path / "run")]) == 2
    assert "RANK is not" in capsys.readouterr().err


def test_a_process_that_does_not_know_its_gpu_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(wsss.distributed, "pick_device", torch.device)
    with pytest.raises(UserError, match="LOCAL_RANK is not"), joined("cuda"):
        pass


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_each_of_several_processes_looks_at_its_own_gpu_alone(name, monkeypatch):
    looked_at = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda size, *, device: looked_at.append(device))
    for variable, value in {"WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(variable, value)
    assert pick_device(name) == torch.device("cuda:3") and looked_at == [torch.device("cuda:3")]


@pytest.mark.parametrize("half", [{"RANK": "0"}, {"RANK": "x"}, {"RANK": "0", "WORLD_SIZE": ""}])
def test_a_group_of_which_only_half_is_known_is_refused(half, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"WORLD_SIZE": "2"} | half).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="not all that torchrun sets"), joined("cpu"):
        pass


def test_processes_that_do_not_find_each_other_are_told_where_they_looked(monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(nobody.getsockname()[1])}
        for name, value in ({"WORLD_SIZE": "2", "RANK": "1"} | address).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        monkeypatch.setattr(wsss.distributed, "_MEETING", timedelta(seconds=1))
        with pytest.raises(UserError, match="do not find each other by MASTER_ADDR=127.0.0.1"), joined("cpu"):
            pass


def test_a_report_by_photograph_needs_a_file(capsys):
    with pytest.raises(SystemExit) as ended:
        evaluate.main(["--checkpoint", "x", "--per-image"])
    assert ended.value.code == 2 and "name its file with --json" in capsys.readouterr().err


def test_a_state_is_no_checkpoint(tmp_path, capsys, photographs):
    checkpoint.save(tmp_path / "state", {}, tiny(), ("a",), extra={"training.pt": lambda path: path.write_text("")})
    assert predict.main([photographs[0], "--checkpoint", str(tmp_path / "state"), "--out", str(tmp_path / "o")]) == 2
    assert "is a state of training, not a checkpoint; give the run's folder model or best" in refusal(capsys)


@pytest.mark.parametrize("command", ["evaluate", "predict", "pseudo_labels"])
def test_a_crf_that_is_not_installed_is_said_before_anything_is_read(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    argv = ["--checkpoint", str(tmp_path / "nowhere"), "--crf"]
    argv += [] if command == "evaluate" else ["--out", str(tmp_path / "masks")]
    argv += ["photo.jpg"] if command == "predict" else []
    assert getattr(wsss, command).main(argv) == 2
    assert "the dense CRF needs the package pydensecrf2" in refusal(capsys)


FOREIGN = (".tmp-thesis", ".old-bashrc", "model", "metrics.jsonl", "notes.txt")
"""What a user may have in a folder that is named as a run's."""


@pytest.mark.parametrize("name", FOREIGN)
def test_a_run_begins_in_no_folder_that_holds_something_else(name, tmp_path, capsys):
    (tmp_path / name).write_text("mine")
    assert train.main(["--preset", "tiny", "--out", str(tmp_path)]) == 2
    assert f"holds {name!r}, which a new run did not write" in refusal(capsys)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_a_report_replaces_no_device_and_no_file_of_the_checkpoint(shapes_model, tmp_path, capsys):
    pipe, link = tmp_path / "pipe", tmp_path / "link.json"
    os.mkfifo(pipe)
    link.symlink_to(shapes_model / "config.json")
    before = (shapes_model / "config.json").read_bytes()
    wrong = {pipe: "is a device or a pipe", link: "lies in the checkpoint"}
    wrong[shapes_model / "new.json"] = "lies in the checkpoint"
    for report, words in wrong.items():
        assert evaluate.main(["--checkpoint", str(shapes_model), "--json", str(report)]) == 2
        assert words in refusal(capsys)
    assert pipe.is_fifo() and (shapes_model / "config.json").read_bytes() == before


def test_a_report_is_written_where_a_link_leads_and_though_nobody_reads_what_is_printed(
    shapes_model, tmp_path, monkeypatch
):
    target, link = tmp_path / "report.json", tmp_path / "link.json"
    target.write_text("of yesterday")
    link.symlink_to(target)

    def broken(*_, **__):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(evaluate, "_print", broken)
    assert evaluate.main(["--checkpoint", str(shapes_model), "--json", str(link)]) == 4
    assert link.is_symlink() and json.loads(target.read_text())["photographs"] == 40


def test_weights_that_overflow_in_the_network_are_refused(shapes_model, tmp_path, photographs, capsys):
    weights = checkpoint.read_weights(shapes_model, checkpoint.read_config(shapes_model)["sha256"])
    huge = {name: value.double() * 1e300 if value.is_floating_point() else value for name, value in weights.items()}
    checkpoint.save(tmp_path / "huge", huge, SMALL, read("shapes", None, "val").classes)
    flags = ["--checkpoint", str(tmp_path / "huge"), "--out", str(tmp_path / "masks")]
    assert predict.main([photographs[0], *flags]) == 2
    assert "holds numbers that are too large" in refusal(capsys)


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_command_without_standard_output_or_error_ends_as_it_would(closed):
    program = "import sys; from wsss import UserError, exits; sys.exit(exits.report(UserError('x')))"
    command = f'{sys.executable} -c "{program}" {closed}>&-'
    ended = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr + ended.stdout


def test_a_checkpoint_whose_list_of_files_is_none_is_known_by_its_weights(shapes_model, tmp_path):
    shutil.copytree(shapes_model, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"files": 5}))
    assert checkpoint.load(tmp_path / "model").classes == checkpoint.load(shapes_model).classes


def test_the_timing_of_nothing_is_refused(tmp_path, capsys):
    assert timing.main(["--checkpoint", str(tmp_path)]) == 2
    assert "it has no config.json" in refusal(capsys)
    with pytest.raises(SystemExit, match="2"):
        timing.main(["--moves", "0"])


def test_a_name_of_the_greatest_length_has_a_mask(animals_model, photographs, tmp_path):
    long = tmp_path / f"{'n' * 251}.jpg"
    shutil.copy(photographs[0], long)
    assert predict.main([str(long), "--checkpoint", str(animals_model), "--out", str(tmp_path / "masks")]) == 0
    assert [path.stem for path in (tmp_path / "masks").iterdir()] == [long.stem]


def test_a_name_that_the_terminal_does_not_have_is_printed_by_its_number():
    words, environment = "import wsss; print('\u732b')", os.environ | {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", words], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert ended.stdout == b"\\u732b\n"


@pytest.mark.parametrize(
    "odd", [{"files": {"model.safetensors": "x"}}, {"sha256": None}, {"classes": 5}, {"classes": [1, 2]}]
)
def test_a_state_with_an_odd_description_is_broken_and_the_one_before_is_taken(odd, tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path / "states" / f"step-{step:06d}", {}, tiny(), ("a",))
    config = tmp_path / "states" / "step-000002" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | odd))
    said = []
    assert newest_whole(tmp_path / "states", say=said.append).name == "step-000001"
    assert len(said) == 1 and "this state is broken" in said[0]


def test_links_that_lead_in_a_circle_end_in_a_sentence(shapes_model, tmp_path, photographs, capsys):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for argv in ([str(loop), "--out", str(tmp_path / "masks")], [photographs[0], "--out", str(loop)]):
        assert predict.main([*argv, "--checkpoint", str(shapes_model)]) == 2
        assert "loop" in refusal(capsys)


def without_the_rights_of_root() -> None:
    """Root reads what nobody may; this process no longer does."""
    libc, header, held = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, held)
    held[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.capset(header, held)


@pytest.mark.parametrize(
    ("closed", "command"),
    [
        ("images/a.png", predict.main),
        ("images", train.main),
        ("masks/a.png", train.main),
        ("masks", train.main),
        ("labels.csv", evaluate.main),
        ("model", predict.main),
    ],
)
def test_what_may_not_be_read_is_named_in_a_sentence(closed, command, own_cat, tmp_path):
    data, model = ["--data", str(own_cat)], ["--checkpoint", str(own_cat / "model")]
    out = ["--out", str(tmp_path / "out")]
    flags = {
        predict.main: [str(own_cat / "images" / "a.png"), *model, *out],
        evaluate.main: [*data, *model, "--split", "all"],
        train.main: [*data, *out, "--preset=tiny", "--dataset=folder", "--train-split=all", "--val-split=all"],
    }

    def run() -> int:
        without_the_rights_of_root()
        (own_cat / closed).chmod(0)
        try:
            return command(flags[command])
        finally:
            (own_cat / closed).chmod(0o755)

    child = Child(run, tmp_path / "log")
    assert child.wait() == 2 and "Traceback" not in child.said()
    assert str(own_cat / closed) in child.said() and "cannot be read (Permission denied)" in child.said()


def test_a_page_of_a_checkpoint_that_may_not_be_read_is_refused_in_a_sentence(own_cat, tmp_path):
    def run() -> int:
        without_the_rights_of_root()
        (own_cat / "model").chmod(0)
        try:
            serving(["--checkpoint", str(own_cat / "model")], "")
        except SystemExit as ended:
            return ended.code
        finally:
            (own_cat / "model").chmod(0o755)

    child = Child(run, tmp_path / "log")
    assert child.wait() == 2 and "cannot be read (Permission denied)" in child.said()
