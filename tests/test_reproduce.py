"""The paper's tables: trained by one command, taken up where it was interrupted, written beside the paper's numbers."""

import json
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import write_lively, write_pictures
from safetensors.torch import load_file

from analysis import reproduce, tables
from analysis.experiments import ALPHAS, TRAINED
from analysis.pseudo_quality import pseudo_quality
from wsss import UserError, checkpoint, evaluate, train
from wsss.crf import available as crf_is_available
from wsss.data.shapes import Shapes
from wsss.data.source import read
from wsss.flags import latest
from wsss.network import build
from wsss.presets import tiny

SMALL = ["--preset", "tiny", "--seeds", "0", "--epochs", "2", "--warmup-epochs", "1", "--crop", "32", "--batch", "16"]
SMALL += ["--encoder", "test_efficientnet", "--encoder-weights", "none", "--aspp-channels", "8", "--previews", "0"]
SMALL += ["--precision", "float32"]  # which format is the fastest is measured, and may differ from run to run
FEW = {"train": (48, 0), "val": (4, 1)}


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Nothing here is about how well a network learns."""
    monkeypatch.setattr("wsss.data.source._DRAWN", FEW)


@pytest.fixture
def folders(tmp_path) -> list[str]:
    return ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]


@pytest.fixture(scope="module")
def table_8(tmp_path_factory) -> tuple[Path, list[str]]:
    """Where its networks are trained and it is written, and by which flags."""
    place = tmp_path_factory.mktemp("table-8")
    flags = [*SMALL, "--runs", str(place / "runs"), "--out", str(place / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsss.data.source._DRAWN", FEW)
        assert reproduce.main(["8", *flags]) == 0
    return place, flags


def logs(folder) -> dict[str, str]:
    """Of all runs; what is trained again takes another time."""
    return {path.parent.name: path.read_text() for path in folder.glob("runs/*/metrics.csv")}


@pytest.mark.slow
def test_a_table_is_trained_once_and_written_with_its_commands(table_8, capsys):
    place, flags = table_8
    table = tables.read(place / "out", "8")
    assert list(table["variant"]) == [variant.name for variant in TRAINED["8"].variants]
    assert table["mIoU"].between(0, 100).all()
    assert str(place) not in (place / "out" / "table_8.md").read_text()
    for row in table.itertuples():
        known = checkpoint.read_config(place / "runs" / f"{row.variant}-0" / "model")
        assert row.mIoU == pytest.approx(100 * known["val"]["miou"], abs=1e-3)
        assert known["config"]["region_loss"] == ("--region-loss false" not in row.command)
    assert json.loads((place / "out" / "table_8.json").read_text())["data"]
    trained = logs(place)
    assert reproduce.main(["8", *flags]) == 0
    assert logs(place) == trained  # nothing was trained again
    assert reproduce.main(["8", *flags, "--lr", "0.5"]) == 2
    assert "classified-0: the run has lr 0.02, it cannot be resumed with 0.5" in capsys.readouterr().err


@pytest.mark.slow
def test_variants_classify_together_and_end_as_if_each_was_trained_alone(table_8, tmp_path):
    place, flags = table_8
    assert [path.name for path in (place / "runs").glob("classified*")] == ["classified-0"]
    seeds = flags.index("--seeds")
    given = flags[:seeds] + flags[seeds + 2 : len(SMALL)]  # seed 0 is the default
    for variant in TRAINED["8"].variants[1:3]:
        alone, shared = tmp_path / variant.name, place / "runs" / f"{variant.name}-0"
        assert train.main([*given, *variant.flags, "--out", str(alone)]) == 0
        one, other = (load_file(folder / "model" / "model.safetensors") for folder in (alone, shared))
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def drawn(tmp_path):
    """A data folder of two splits of drawn pictures, and a checkpoint of a lively network."""
    pictures = Shapes(5, 0, (64, 72))
    write_pictures(tmp_path / "data", pictures, ["train"] * 3 + ["val"] * 2)
    write_lively(tmp_path / "model", pictures, test_refine_steps=3)
    return ["--checkpoint", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]


def test_table_6_has_a_line_for_each_alpha_of_each_split(drawn, tmp_path):
    assert reproduce.main(["6", *drawn, "--splits", "val", "train"]) == 0
    table = tables.read(tmp_path / "out", "6")
    measures = ["refined map mIoU", "pseudo mask mIoU", "labelled"]
    assert list(table.columns) == ["split", "photographs", "alpha", *measures, "checkpoint", "commit"]
    wanted = [(split, count, alpha) for split, count in (("val", 2), ("train", 3)) for alpha in ALPHAS]
    assert list(table[["split", "photographs", "alpha"]].itertuples(index=False, name=None)) == wanted
    assert tables.figure("6", table).layout.yaxis.rangemode == "normal"  # the curves lie close together
    assert set(table["checkpoint"]) == {"model"} and set(table["commit"]) == {"0123456789ab"}
    for measure in measures:
        assert table[measure].between(0, 100).all() and table[measure].nunique() > len(ALPHAS) // 2
    network, config, _, _ = checkpoint.load(tmp_path / "model")
    found = pseudo_quality(network, read("folder", tmp_path / "data", "val"), config, [0.6])
    line = table[(table["split"] == "val") & (table["alpha"] == 0.6)].iloc[0]
    assert {measure: line[measure] for measure in measures} == pytest.approx(found[0.6], abs=1e-3)


def test_a_table_that_is_interrupted_says_so_by_its_exit_code_alone(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "pseudo_quality", lambda *_: signal.raise_signal(signal.SIGINT))
    assert reproduce.main(["6", *drawn]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "" and tables.written(tmp_path / "out") == []


@pytest.mark.skipif(not crf_is_available(), reason="pydensecrf2 is not installed")
def test_the_table_of_the_refinement_and_the_crf_agrees_with_the_command_that_evaluates(drawn, tmp_path):
    assert reproduce.main(["crf", *drawn]) == 0
    table = tables.read(tmp_path / "out", "crf")
    assert list(table.columns) == ["masks", "mIoU", "boundary IoU", "checkpoint", "commit"]
    assert list(table["masks"]) == ["network", "refined (SPR)", "CRF", "refined (SPR), then CRF"]
    assert table["mIoU"].between(0, 100).all() and table["boundary IoU"].between(0, 100).all()
    assert table["mIoU"].nunique() == len(table)
    scores = table.set_index("masks")[["mIoU", "boundary IoU"]]
    for flags, masks in (([], "refined (SPR)"), (["--crf"], "CRF")):
        report = tmp_path / "report.json"
        assert evaluate.main([*drawn[:4], *flags, "--json", str(report)]) == 0
        known = json.loads(report.read_text())
        expected = [100 * known["miou"], 100 * known["mean_boundary_iou"]]
        assert list(scores.loc[masks]) == pytest.approx(expected, abs=1e-3)


def test_what_is_measured_is_never_mixed_with_the_papers_numbers():
    rows = [("a", 0, 50.0, 30.0, 60.0, 40.0), ("a", 1, 54.0, 32.0, 60.0, 40.0)]
    columns = ["variant", "seed", "mIoU", "boundary IoU", "paper mIoU", "paper boundary IoU"]
    table = pd.DataFrame(rows, columns=columns)
    (line,) = tables.summary("5", table).to_dict("records")
    assert line["measured here: mIoU"] == 52 and line["range of mIoU"] == 4 and line["seeds"] == 2
    assert line["paper, on VOC: mIoU"] == 60
    drawn = [np.asarray(trace.y, float) for trace in tables.figure("5", table).data]
    assert 60 not in np.concatenate(drawn)


def test_one_seed_has_no_range_and_what_was_measured_has_two_decimals():
    rows = [("a", 0, 50.123, 30.0, 60.0, 40.1)]
    columns = ["variant", "seed", "mIoU", "boundary IoU", "paper mIoU", "paper boundary IoU"]
    table = pd.DataFrame(rows, columns=columns).assign(commit="c", command="python")
    assert "| a | 50.12 | 30.00 | - | - | 1 | 60 | 40.1 |" in tables.markdown("5", table)


def test_a_flag_for_training_is_refused_where_nothing_is_trained(folders, capsys):
    assert reproduce.main(["6", "--epochs", "1", *folders]) == 2
    assert "trains none" in capsys.readouterr().err


@pytest.mark.parametrize("table", ["8", "two-stage"])
def test_a_table_without_a_split_to_evaluate_on_is_refused_before_the_training(folders, tmp_path, capsys, table):
    assert reproduce.main([table, *SMALL, *folders, "--val-split", "none"]) == 2
    assert "a table is made of scores" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_table_that_is_not_there_is_asked_for_in_words(tmp_path):
    with pytest.raises(UserError, match=r"run analysis.reproduce 5"):
        tables.read(tmp_path, "5")
    assert tables.written(tmp_path) == []


def test_pseudo_masks_are_judged_at_each_alpha():
    torch.manual_seed(0)
    network = build(tiny(), len(Shapes.classes) + 1, pretrained=False).eval()
    with torch.no_grad():
        network.decoder.layers[-1].weight.mul_(30)
    found = pseudo_quality(network, Shapes(3, 0, (64, 64)), tiny(), ALPHAS)
    assert list(found) == list(ALPHAS)
    assert all(0 <= value <= 100 for quality in found.values() for value in quality.values())
    assert len({quality["labelled"] for quality in found.values()}) > 1  # alpha changes the masks


def test_a_lines_own_flags_replace_the_users():
    of_user, of_line = ["--alpha", "0.8", "--crop=32", "--skip-bad"], ["--alpha", "1"]
    assert latest(of_user, of_line) == ["--alpha", "1", "--crop", "32", "--skip-bad"]
    with pytest.raises(UserError, match="does not belong to a flag"):
        latest(["0.8"])
    with pytest.raises(UserError, match="--crop is given twice"):
        latest([*of_user, "--crop", "64"])
