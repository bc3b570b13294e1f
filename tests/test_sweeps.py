"""Sweeps: each cell is the pseudo mask that the page would show, and the network is given back as it was."""

import copy
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from analysis.charts import sweep_figure
from analysis.contact_sheet import cell_at, contact_sheet
from analysis.encoding import Encoding
from analysis.predictor import Predictor
from analysis.sweeps import (
    MEASURES,
    Axis,
    SweptSettings,
    csv_text,
    description,
    edge_agreement,
    png,
    strong_edges,
    sweep,
)
from wsss import UNLABELLED, UserError

TEXTURED = Path(__file__).parent.parent / "checkpoints" / "animals-two-stage"
ALPHA, STEPS, TAU = Axis("alpha", (0.0, 0.8)), Axis("T", (0, 10, 20)), Axis("tau", (0.1, 2.0))


@pytest.fixture(scope="module")
def predictor(shipped_or_fresh) -> Predictor:
    return Predictor.from_checkpoint(shipped_or_fresh)


@pytest.fixture(scope="module")
def encoding(predictor, cat):
    return predictor.encode(cat)


@pytest.fixture(scope="module")
def settings(predictor) -> SweptSettings:
    return SweptSettings.of(predictor.config)


@pytest.fixture(scope="module")
def cells(predictor, encoding, settings):
    return list(sweep(predictor, encoding, ["cat"], ALPHA, STEPS, settings))


def test_each_cell_is_the_pseudo_mask_of_its_settings(predictor, encoding, cells):
    assert [(cell.row, cell.column) for cell in cells] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for cell in cells:
        assert cell.settings.alpha == ALPHA.values[cell.row] and cell.settings.steps == STEPS.values[cell.column]
        assert np.array_equal(cell.mask, predictor.pseudo(encoding, ["cat"], cell.settings))


def test_a_cell_agrees_with_the_one_to_its_left_or_above(cells):
    assert np.isnan(cells[0].measures["neighbor"])
    assert cells[1].measures["neighbor"] == (cells[1].mask == cells[0].mask).mean()
    assert cells[3].measures["neighbor"] == (cells[3].mask == cells[0].mask).mean()


def test_the_iou_is_that_with_the_ground_truth(predictor, encoding, settings, cells):
    again = list(sweep(predictor, encoding, ["cat"], ALPHA, STEPS, settings, truth=cells[4].mask))
    assert again[4].measures["iou"] == 1 and again[0].measures["iou"] < 1
    assert np.isnan(cells[4].measures["iou"])


def test_another_tau_is_another_drop_in_the_network(predictor, encoding, settings):
    before = predictor.network.shape_cue.temperature
    low, high = sweep(predictor, encoding, ["cat"], TAU, None, settings)
    assert predictor.network.shape_cue.temperature == before
    for cell, tau in ((low, 0.1), (high, 2.0)):
        other = Predictor(copy.deepcopy(predictor.network), predictor.config, predictor.classes, {})
        other.network.shape_cue.temperature = tau
        assert np.array_equal(cell.mask, other.pseudo(other.encode(encoding.rgb), ["cat"], cell.settings))
    assert not np.array_equal(low.mask, high.mask)


def test_the_checkpoints_own_tau_needs_no_other_pass(predictor, encoding, settings, monkeypatch):
    monkeypatch.setattr(predictor.network, "forward", None)
    own = Axis("tau", (settings.temperature,))
    (cell,) = sweep(predictor, encoding, ["cat"], own, None, settings)
    assert np.array_equal(cell.mask, predictor.pseudo(encoding, ["cat"], settings))


def test_the_drop_is_restored_when_the_network_fails(predictor, encoding, settings, monkeypatch):
    shape_cue = predictor.network.shape_cue
    before = shape_cue.temperature, shape_cue.radius
    monkeypatch.setattr(predictor.network, "forward", None)
    with pytest.raises(TypeError):
        next(sweep(predictor, encoding, ["cat"], Axis("R1", (3,)), None, settings))
    assert (shape_cue.temperature, shape_cue.radius) == before


def test_the_network_looks_once_at_each_tau_whichever_axis_it_is(predictor, encoding, settings, monkeypatch):
    looked, encode = [], Encoding.of
    monkeypatch.setattr(Encoding, "of", lambda *a: looked.append(a[-1]) or encode(*a))
    for rows, columns in ((TAU, ALPHA), (ALPHA, TAU)):
        looked.clear()
        assert len(list(sweep(predictor, encoding, ["cat"], rows, columns, settings))) == 4
        assert len(looked) == 2


def test_a_sweep_that_is_not_read_on_computes_no_more(predictor, encoding, settings, monkeypatch):
    computed, pseudo = [], predictor.pseudo
    monkeypatch.setattr(predictor, "pseudo", lambda *given: computed.append(given) or pseudo(*given))
    cells = sweep(predictor, encoding, ["cat"], Axis("alpha", (0.31, 0.32, 0.33)), None, settings)
    next(cells)
    cells.close()
    assert len(computed) == 1


def test_outlines_on_edges_agree_and_outlines_beside_them_do_not():
    rgb = np.zeros((80, 100, 3), np.uint8)
    rgb[20:60, 30:70] = 255
    strong, mask = strong_edges(rgb), np.zeros((80, 100), np.uint8)
    mask[20:60, 30:70] = 1
    assert edge_agreement(mask, strong) == 1
    assert edge_agreement(np.roll(mask, 15, 1), strong) < 0.7
    assert np.isnan(edge_agreement(np.full((80, 100), UNLABELLED, np.uint8), strong))


def test_a_line_of_the_table_is_a_cell(cells):
    lines = list(csv.DictReader(io.StringIO(csv_text(cells[::-1]))))
    assert [(line["alpha"], line["steps"]) for line in lines[:2]] == [("0.0", "0"), ("0.0", "10")]
    assert lines[0]["iou"] == "" and float(lines[4]["valid"]) == pytest.approx(cells[4].measures["valid"], abs=1e-5)


@pytest.mark.parametrize("columns", [STEPS, None])
def test_the_sheet_shows_each_cell_where_a_click_finds_it(predictor, encoding, cells, columns):
    kept = cells if columns else [cell for cell in cells if cell.column == 0]
    sheet = contact_sheet(kept, ALPHA, columns, encoding.rgb, predictor.colors, measure="valid")
    found = {
        cell_at((x, y), sheet.shape[:2], ALPHA, columns)
        for x in range(0, sheet.shape[1], 9)
        for y in range(0, sheet.shape[0], 9)
    }
    assert found == {(cell.row, cell.column) for cell in kept} | {None}


def test_a_tall_sweep_of_a_tall_photograph_is_no_taller_than_a_jpeg_can_be(predictor):
    rows = Axis("alpha", tuple(np.linspace(0, 1, 100)))
    sheet = contact_sheet([], rows, Axis("T", (10,)), np.zeros((900, 300, 3), np.uint8), predictor.colors)
    assert sheet.shape[0] < 65_500


def test_cells_that_are_not_there_yet_stay_gray(predictor, encoding, cells):
    whole, part = (contact_sheet(some, ALPHA, STEPS, encoding.rgb, predictor.colors) for some in (cells, cells[:1]))
    differing = cv2.boundingRect((whole != part).any(2).astype(np.uint8))
    assert whole.shape == part.shape and differing[0] >= 124 and (part[-60:-40, 134:300] == 220).all()


def test_the_picture_tells_how_it_was_made(predictor, encoding, settings, cells):
    sheet = contact_sheet(cells, ALPHA, STEPS, encoding.rgb, predictor.colors)
    told = description(predictor, ["cat"], ALPHA, STEPS, settings)
    picture = Image.open(io.BytesIO(png(sheet, told)))
    assert json.loads(picture.text["settings"]) == told and told["axes"] == {"alpha": [0.0, 0.8], "T": [0, 10, 20]}
    assert told["checkpoint"]["sha256"] == predictor.facts["sha256"]
    assert np.array_equal(np.asarray(picture), sheet)


@pytest.mark.parametrize("measure", MEASURES)
def test_one_axis_is_a_curve_and_two_are_a_map(cells, measure):
    (curve,) = sweep_figure([cell for cell in cells if cell.column == 0], ALPHA, None, measure).data
    (heat,) = sweep_figure(cells[:-1], ALPHA, STEPS, measure).data
    assert (curve.type, heat.type) == ("scatter", "heatmap") and len(curve.y) == 2
    assert np.shape(heat.z) == (2, 3) and np.isnan(heat.z[1][2])


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        (Axis("mood", (1,)), None, "no axis 'mood'; choose from alpha, T"),
        (Axis("T", ()), None, "the axis T has no values"),
        (Axis("T", (1, 1.5)), None, "the values of T must be whole numbers"),
        (ALPHA, ALPHA, "both axes are alpha; choose two different ones"),
        (Axis("alpha", (0.5,) * 20), Axis("T", (1,) * 20), "400 cells is too large; 144 are allowed"),
    ],
)
def test_axes_that_do_not_fit_are_refused_at_once(predictor, encoding, settings, rows, columns, words):
    with pytest.raises(UserError, match=words):
        sweep(predictor, encoding, ["cat"], rows, columns, settings)


@pytest.mark.parametrize(("name", "value"), [("alpha", 2.0), ("T", 99), ("threshold", -1.0), ("tau", 0.0), ("R1", 99)])
def test_a_value_out_of_range_is_refused_in_words(predictor, encoding, settings, name, value):
    with pytest.raises(UserError, match="must"):
        next(sweep(predictor, encoding, ["cat"], Axis(name, (value,)), None, settings))


def test_tau_without_a_shape_cue_is_refused_in_words(predictor, encoding, settings):
    without = copy.copy(predictor)
    without.network = copy.deepcopy(predictor.network)
    without.network.shape_cue = None
    with pytest.raises(UserError, match="tau changes nothing: this checkpoint has no shape cue"):
        sweep(without, encoding, ["cat"], TAU, None, settings)


def test_an_axis_is_read_from_numbers_with_commas_between():
    axis = Axis.read("T", "0, 10,,2.5")
    assert axis == Axis("T", (0, 10, 2.5)) and list(map(type, axis.values)) == [int, int, float]


@pytest.mark.parametrize("text", ["1, two", "inf", "nan", "1e999", None, 5])
def test_an_axis_of_anything_else_is_refused_in_words(text):
    with pytest.raises(UserError, match="the values of alpha must be numbers with commas between"):
        Axis.read("alpha", text)


def test_a_cell_refines_over_the_chosen_dilations(predictor, encoding, settings):
    (near,), (all_rings,) = (
        list(sweep(predictor, encoding, ["cat"], Axis("T", (10,)), None, chosen))
        for chosen in (replace(settings, dilations=(1, 2)), settings)
    )
    assert np.array_equal(near.mask, predictor.pseudo(encoding, ["cat"], near.settings))
    assert not np.array_equal(near.mask, all_rings.mask)


def test_a_shape_cue_that_keeps_its_texture_has_nothing_to_sweep(cat, settings):
    predictor = Predictor.from_checkpoint(TEXTURED)
    encoding = predictor.encode(cat)
    assert predictor.encode_by_drop(encoding, 0.1, 3) is encoding
    with pytest.raises(UserError, match="tau changes nothing: this checkpoint has no shape cue, or one that drops"):
        sweep(predictor, encoding, ["cat"], TAU, None, settings)
