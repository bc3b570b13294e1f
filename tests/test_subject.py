"""What all tabs look at: what belongs to a photograph does not outlive it."""

import json
import warnings
from contextvars import ContextVar
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from analysis.gradcam import Cam
from analysis.library import Library
from analysis.pseudo_settings import PseudoSettings
from analysis.render import recolored
from analysis.tabs import cams, inspect, refinement, reset, sessions, sweep
from analysis.tabs.class_colors import parse
from analysis.tabs.outputs import again_if_moved, emptied, noting
from analysis.tabs.pictures import Number
from analysis.tabs.scene import Scene
from analysis.tabs.subject import Subject, unlike_before
from wsss import UserError
from wsss.data.voc import voc_values


@pytest.fixture(scope="module")
def subject(shipped_or_fresh) -> Subject:
    with gr.Blocks():
        return Subject(Library([shipped_or_fresh]))


@pytest.fixture
def scene(subject, cat) -> Scene:
    predictor = subject.default
    return Scene(predictor, predictor.encode(cat), ["cat"], None)


def ones(size: tuple[int, int], path) -> str:
    Image.fromarray(np.ones(size, np.uint8)).save(path)
    return str(path)


def stored(rgb: np.ndarray, path) -> str:
    Image.fromarray(rgb).save(path)
    return str(path)


def test_what_belonged_to_a_photograph_does_not_outlive_it(subject, cat, tmp_path):
    """Its ground truth may fit the next one's size and still be another photograph's."""
    truth, name = ones(cat.shape[:2], tmp_path / "truth.png"), subject.library.names[0]
    before, file = np.ascontiguousarray(cat[:, ::-1]), stored(cat, tmp_path / "cat.png")
    values = np.ones(cat.shape[:2], np.uint8)
    chips, _, put_away, path, rgb, *belonged, ticked = subject._accept(
        name, file, truth, ["dog"], "Inspect", "before.png", before, truth, values, True
    )[:9]
    assert path == file and np.array_equal(rgb, cat) and "dog" not in chips.value
    assert (put_away, *belonged, ticked) == (None, None, None, None, False)
    cleared = subject._accept(name, None, truth, ["dog"], "Inspect", "before.png", before, truth, values, True)
    assert cleared[2:9] == (None, "", *[None] * 4, False)
    forgotten = subject._accept(name, file, truth, [], "Inspect", None, None, None, None, False)
    assert forgotten[2] is None and forgotten[6] is None, "a session that was forgotten has read no truth"


def test_a_truth_that_is_given_before_its_photograph_stays(subject, cat, tmp_path):
    truth, file, name = ones(cat.shape[:2], tmp_path / "truth.png"), stored(cat, tmp_path / "cat.png"), "animals"
    _, _, _, path, rgb, *_ = subject._accept(name, None, None, [], "Inspect", "b.png", cat, None, None, False)
    told = subject._read_truth(subject.library.names[0], None, truth, path, rgb, None, "Inspect")
    assert all(part == gr.skip() for part in told), "there is nothing yet that it could fit"
    _, _, put_away, _, _, _, values, *_ = subject._accept(
        name, file, truth, [], "Inspect", path, rgb, None, None, False
    )
    assert put_away == gr.skip() and (values == 1).all()


def test_a_photograph_that_the_server_has_forgotten_is_asked_for(subject):
    """The page still shows it, and the pictures made of it; those stay."""
    with pytest.warns(UserWarning, match="The server has no photograph of this page"):
        answer = subject.answer(lambda scene: pytest.fail("there is none"), 2)
        assert answer(subject.library.names[0], None, None, ["cat"], {}, None) == [gr.skip()] * 2


def test_what_asks_for_a_photograph_says_that_there_is_none(subject, recwarn):
    nothing = (subject.library.names[0], None, None, [], {}, None)
    assert subject.answer(lambda scene: scene, 1)(*nothing) is None and not recwarn.list
    with pytest.warns(UserWarning, match="There is no photograph: give one"):
        assert subject.answer(lambda scene: scene, 1, asks=True)(*nothing) is None


def test_a_mistake_of_the_visitor_is_told_and_changes_nothing(subject, cat):
    def refuse(scene):
        raise UserError("no dilation is chosen")

    given = subject.library.names[0], cat, None, ["cat"], {}, None
    for count, nothing in ((1, gr.skip()), (2, [gr.skip()] * 2)):
        with pytest.warns(UserWarning, match="No dilation is chosen."):
            assert subject.answer(refuse, count)(*given) == nothing


def test_outside_the_queue_a_mistake_is_one_more_output(subject, cat, recwarn):
    def refuse(scene):
        raise UserError("no dilation is chosen")

    given = subject.library.names[0], cat, None, ["cat"], {}, None
    for count, nothing in ((1, [gr.skip()]), (2, [gr.skip()] * 2)):
        *shown, mistake = subject.answer(refuse, count, carries_mistakes=True)(*given)
        assert shown == nothing and mistake.partition(" ")[2] == "No dilation is chosen."
    assert subject.answer(lambda scene: 7, 1, carries_mistakes=True)(*given) == (7, gr.skip())
    assert not recwarn.list


def test_of_a_checkpoint_that_cannot_be_opened_nothing_is_told_but_that(subject, cat):
    with pytest.warns(UserWarning, match="There is no checkpoint 'gone'"):
        chips, about, *others = subject._accept("gone", "b.png", None, [], "Inspect", "b.png", cat, None, None, False)
    assert about == "" and all(part == gr.skip() for part in (chips, *others))


def test_after_a_mistake_nothing_of_the_photograph_before_stays(subject, cat):
    """Of a slider the pictures stay; those of another photograph must not."""

    def refuse(scene):
        raise UserError("no dilation is chosen")

    def refuse_late(scene):
        yield 1, 2
        refuse(scene)

    given = subject.library.names[0], cat, None, ["cat"], {}, None
    with pytest.warns(UserWarning, match="No dilation is chosen."):
        assert subject.answer(refuse, 2, mistaken=[None, gr.skip()])(*given) == [None, gr.skip()]
    with pytest.warns(UserWarning, match="No dilation is chosen."):
        assert list(subject.answer(refuse_late, 2, mistaken=[None, None])(*given)) == [(1, 2), [None, None]]


def test_a_truth_is_read_in_the_classes_of_the_checkpoint_that_is_asked(subject, cat):
    """Another visitor may have had this checkpoint's files read anew, with other classes."""
    values = np.full(cat.shape[:2], voc_values(subject.default.classes)[2], np.uint8)
    given = subject.library.names[0], cat, values, ["cat"], {}, None
    assert (subject.answer(lambda scene: scene.truth, 1)(*given) == 2).all()
    classes, subject.default.classes = subject.default.classes, subject.default.classes[1:]
    try:
        assert (subject.answer(lambda scene: scene.truth, 1)(*given) == 1).all()
    finally:
        subject.default.classes = classes


def test_a_number_box_may_be_empty_while_it_is_written_in():
    assert [Number(0, precision=0).preprocess(given) for given in (None, -3, 7)] == [0, 0, 7]


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_sweep_ends_when_another_one_begins_or_its_photograph_is_taken_away(subject, cat, monkeypatch, is_gone):
    monkeypatch.setattr(sweep, "_PAUSE", 0)
    latest, settings = sweep.Latest(), (0.8, 10, 0.6, 0.7, 0.2, [1, 2], False)
    asked = subject.answer(sweep._sweep, 5, first=sweep.end_before)
    given, axes = [subject.library.names[0], cat, None, ["cat"], {}, None], [sweep.NOTHING, "", "valid"]
    first = asked(*given, latest, 1, "alpha", "0, 0.5, 1", *axes, *settings)
    assert next(first)[0] is not None
    if is_gone:
        given[1], given[3] = None, []
    second = list(asked(*given, latest, 1, "T", "0, 1", *axes, *settings))
    assert second == [[None] * 5] if is_gone else len(second) == 3
    assert list(first) == []


def test_for_another_checkpoint_the_photographs_classes_and_truth_remain(subject, cat):
    """Their files may have been deleted meanwhile."""
    name, values = subject.library.names[0], np.full(cat.shape[:2], 255, np.uint8)
    values[9] = voc_values(subject.default.classes)[2]
    chips, _, put_away, _, rgb, _, kept, *_ = subject._accept(
        name, "gone.png", "t.png", ["dog", "unicorn"], "Inspect", "gone.png", cat, "t.png", values, True
    )
    assert chips.value == ["dog"] and np.array_equal(rgb, cat) and put_away == gr.skip()
    truth = subject._scene(name, rgb, kept, chips.value, {}, None).truth
    assert kept is values and set(np.unique(truth)) == {2, 255}, "in the checkpoint's own indices"
    chips, *_ = subject._accept(name, "gone.png", None, ["dog"], "Inspect", "gone.png", cat, None, None, False)
    assert chips.value == subject.default.present(subject.default.encode(cat)), "as nothing was said by the visitor"


def test_a_class_that_is_ticked_while_another_checkpoint_opens_stays(subject, cat, monkeypatch):
    monkeypatch.setattr("analysis.tabs.subject.has_changed", lambda state, _: state is subject.ticked)
    given = subject.library.names[0], "gone.png", None, ["cat"], "Inspect", "gone.png", cat, None, None
    for ticked in (False, 1):  # for the first time, or once more
        chips, *_, still = subject._accept(*given, ticked)[:9]
        assert "value" not in chips.constructor_args and len(chips.choices) == len(subject.default.classes)
        assert still == gr.skip()


@pytest.mark.parametrize("is_first", [True, False])
def test_a_truth_that_comes_with_its_photograph_stays_with_it(subject, cat, tmp_path, is_first):
    """Both are told of at once, in either order."""
    truth, file = ones(cat.shape[:2], tmp_path / "truth.png"), stored(cat, tmp_path / "cat.png")
    name, before = subject.library.names[0], np.zeros((64, 64, 3), np.uint8)
    if is_first:
        told = subject._read_truth(name, file, truth, "before.png", before, "before.truth.png", "Inspect")
        assert all(part == gr.skip() for part in told), "it does not belong to the photograph before"
    _, _, put_away, path, rgb, *kept = subject._accept(
        name, file, truth, [], "Inspect", "before.png", before, "before.truth.png", None, False
    )
    assert put_away == gr.skip() and kept[0] == truth and (kept[1] == 1).all() and kept[1].shape == cat.shape[:2]
    told = subject._read_truth(subject.library.names[0], file, truth, path, rgb, kept[0], "Inspect")
    assert all(part == gr.skip() for part in told), "it was read already"


def test_the_page_says_at_which_size_a_large_photograph_is_looked_at(subject, tmp_path):
    file = stored(np.zeros((1200, 1600, 3), np.uint8), tmp_path / "large.png")
    _, told, *_ = subject._accept(subject.library.names[0], file, None, [], "Inspect", None, None, None, None, False)
    assert "shown at 683x512, the network sees 384x288" in told


@pytest.mark.parametrize("size", [(8, 8), None])
def test_a_photograph_that_cannot_be_used_leaves_none(subject, cat, tmp_path, size):
    """The one before would stay beside the name of a new checkpoint."""
    file, name = tmp_path / "given.png", subject.library.names[0]
    ones(size, file) if size else file.write_text("no picture")
    with pytest.warns(UserWarning, match="This image cannot be used"):
        _, _, _, path, rgb, *_ = subject._accept(
            name, str(file), None, [], "Inspect", "cat.png", cat, None, None, False
        )
    assert path == str(file) and rgb is None


def test_a_ground_truth_that_does_not_fit_is_dropped_in_words(subject, cat, tmp_path):
    path = ones((40, 200), tmp_path / "truth.png")
    with pytest.warns(UserWarning, match="not the photograph's proportions"):
        given, *read = subject._read_truth(subject.library.names[0], "cat.png", path, "cat.png", cat, None, "Inspect")
    assert given == path and read == [None]


def test_a_ground_truth_of_other_values_is_doubted_in_words(subject, cat, tmp_path):
    """Black and white, or the classes' own numbers where VOC's are meant: nothing in it would be an object."""
    name = subject.library.names[0]
    assert subject.library[name].classes[0] == "cat"
    for value in (1, 255):
        path = stored(value * (cat[..., 0] > 99).astype(np.uint8), tmp_path / f"{value}.png")
        with pytest.warns(UserWarning, match=f"holds 0{', 1' if value == 1 else ''} and, unlabelled, 255.*cat 8"):
            subject._read_truth(name, "cat.png", path, "cat.png", cat, None, "Inspect")
    path = stored(8 * (cat[..., 0] > 99).astype(np.uint8), tmp_path / "cat.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subject._read_truth(name, "cat.png", path, "cat.png", cat, None, "Inspect")


def test_without_a_photograph_the_controls_stay_and_the_pictures_go(subject):
    with gr.Blocks():
        name, picture, kept = gr.Dropdown(["cat", "dog"]), gr.Image(), gr.State()
    empty = emptied([name, picture], [kept, name])
    assert empty == [gr.skip(), None] == emptied([name, picture], [kept])
    answer = subject.answer(lambda scene: None, 2, empty)
    assert answer(subject.library.names[0], None, None, [], {}, None) == empty
    assert subject.answer(lambda scene: None, 1)(subject.library.names[0], None, None, [], {}, None) is None


def test_a_target_pixel_is_given_up_with_its_photograph_and_kept_with_its_pixel(scene):
    asked = "cat", "pixel", ["GradCAM"], cams._SCALES[0], 0.5, None
    assert cams._show(scene, *asked)[1] == "image score"
    assert cams._show(scene._replace(clicked=(5, 7)), *asked)[1] == gr.skip()


def test_a_class_that_is_not_in_the_photograph_can_be_asked_for(scene):
    """By hand or by a link; only the next photograph has one of its own."""

    def shown(name: str | None, seen: str | None) -> str:
        return cams._show(scene, name, "image score", [], cams._SCALES[0], 0.5, seen)[0].get("value", name)

    here = scene.encoding.key
    assert shown("dog", None) == shown("dog", here) == "dog"
    assert shown("dog", "of another") == shown(None, None) == shown("unicorn", here) == "cat"


@pytest.mark.parametrize("width", [288, 451])
def test_what_is_said_below_a_map_is_no_wider_than_the_map(scene, cat, width):
    rgb = np.ascontiguousarray(np.resize(cat, (200, width, 3)))
    scene = scene._replace(encoding=replace(scene.encoding, rgb=rgb))
    scene = scene._replace(truth=np.ones(rgb.shape[:2], np.uint8))  # a cat all over
    cam = Cam("shape cue", "EigenGradCAM", np.full((8, 8), 1.2e-5, np.float32))  # covers 100 %, all of it inside
    text = cams._captioned(scene, cam, "cat", 0.5, None)[200:]
    assert (text < 128).any() and (text[:, -3:] == 255).all()


def test_a_map_is_judged_by_the_true_object_where_it_is_known(scene, monkeypatch):
    said = []
    monkeypatch.setattr(cams, "captioned", lambda picture, lines: said.append(lines[1]))
    cam = Cam("decoder", "GradCAM", np.ones((8, 8), np.float32))
    truth = np.zeros(scene.encoding.rgb.shape[:2], np.uint8)
    for known in (None, truth, truth + np.uint8(1)):
        cams._captioned(scene._replace(truth=known), cam, "cat", 0.5, None)
    assert said == [
        "over half its maximum: 100 % of the predicted object;",
        "no region of the class is in the truth",
        "over half its maximum: 100 % of the true object;",
    ]


def test_the_pixel_is_the_clicked_one_or_that_in_the_middle(subject, scene, cat):
    assert scene.pixel == (150, 225) and scene._replace(clicked=[3, 4]).pixel == (3, 4)
    gone = subject._scene(subject.library.names[0], cat, None, ["cat"], {}, (300, 4))
    assert gone.clicked is None, "it lies outside: the photograph that was clicked has gone"


def test_the_maps_of_a_slow_method_stay_while_they_are_remembered(scene):
    def shown(scene: Scene, target: str) -> list[str]:
        return [cam.method for cam in cams._explained(scene, "cat", target, ())]

    slow = Cam("decoder", "ScoreCAM", np.ones((8, 8), np.float32))
    scene.predictor.kept.get(cams._key(scene, "cat", "image score", ("ScoreCAM",)), lambda: [slow, slow])
    assert shown(scene, "image score") == ["CAM", "ScoreCAM"]
    assert shown(scene._replace(clicked=(5, 7)), "pixel") == ["CAM"], "it answers another question"


def test_a_slow_method_is_not_run_again_because_its_maps_were_the_oldest(scene, monkeypatch):
    """It takes a minute; the maps of other methods, added first, would put them away."""
    kept, slow = scene.predictor.kept, Cam("decoder", "ScoreCAM", np.ones((8, 8), np.float32))
    kept.get(cams._key(scene, "dog", "image score", ("ScoreCAM",)), lambda: [slow, slow])
    for number in range(kept.size - 1):
        kept.get(number, lambda: None)
    asked, explain = [], cams.explain
    monkeypatch.setattr(cams, "explain", lambda *a, methods, **b: asked.append(methods) or explain(*a, methods=(), **b))
    assert cams._explained(scene, "dog", "image score", ("GradCAM",))[-1] is slow and asked == [("GradCAM",)]


def test_another_t_computes_no_film_and_no_curves_again(scene, monkeypatch):
    """31 masks, only to move a line."""
    values = refinement.Controls(*refinement._values(scene.predictor.config), "cat")
    film, curves = refinement._steps(scene, *values._replace(steps=5))
    monkeypatch.setattr(refinement, "trajectory", None)
    monkeypatch.setattr(refinement, "film_strip", None)
    same, moved = refinement._steps(scene, *values._replace(steps=30, shown="background"))
    assert same is film and [figure.layout.shapes[0].x0 for figure in (curves, moved)] == [5, 30]
    truth = np.ones(film.shape[:2], np.uint8)
    others = scene._replace(present=["dog"]), scene._replace(truth=truth), scene._replace(own_colors={"cat": (1, 2, 3)})
    for other in others:
        with pytest.raises(TypeError):  # it is computed
            refinement._steps(other, *values)
    with pytest.raises(TypeError):
        refinement._steps(scene, *values._replace(alpha=0.123))


def test_the_refinements_controls_have_the_places_of_the_settings():
    assert refinement.Controls._fields[:-1] == tuple(PseudoSettings.__dataclass_fields__)


def test_a_slow_method_must_be_chosen_before_it_runs(scene):
    with pytest.raises(UserError, match="choose a slow method first"):
        cams._run(scene, "cat", "image score", None)


def test_maps_of_the_background_stay_chosen(scene):
    settings = [*refinement._values(scene.predictor.config), "background", "joint"]
    assert refinement._show(scene, *settings)[0].get("value", "background") == "background"
    assert refinement._show(scene, *settings[:-2], "unicorn", "joint")[0]["value"] == "cat"


def test_the_target_pixel_asks_for_a_click(scene):
    with pytest.raises(UserError, match="click a pixel"):
        cams._pictured(scene, "cat", "pixel", ["GradCAM"], cams._SCALES[0], 0.5)


def test_a_control_that_is_moved_while_pictures_are_made_has_the_last_word():
    def answer(photograph, opacity, pixel):
        return f"{photograph} at {opacity}", pixel

    *_, shown = noting(answer, 2, 2)("cat", 0.5, None)
    again = again_if_moved(answer, 2, [0])  # the pixel is the tab's own: it follows from the photograph
    assert again(shown, "cat", 1.0, None) == ("cat at 1.0", None)
    assert again(shown, "cat", 0.5, (3, 4)) == [gr.skip()] * 2
    assert again(None, "cat", 1.0, None) == [gr.skip()] * 2  # a session that was forgotten


def test_of_two_sweeps_that_wait_for_the_network_the_later_one_is_the_latest(subject, cat, monkeypatch):
    """The first must not take the number of the second, which was asked for while it waited."""
    latest = sweep.Latest()
    monkeypatch.setattr(subject, "_scene", lambda *_: latest.end() and Scene(subject.default, None, [], None))
    asked = subject.answer(sweep._sweep, 5, first=sweep.end_before)
    monkeypatch.setattr(sweep, "sweep", lambda *_, **__: iter([None]))
    given = [
        subject.library.names[0],
        cat,
        None,
        ["cat"],
        {},
        None,
        latest,
        1,
        "alpha",
        "0",
        sweep.NOTHING,
        "",
        "valid",
    ]
    assert list(asked(*given, 0.8, 10, 0.6, 0.7, 0.2, [1], False)) == []


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_sweep_that_waits_while_its_tab_is_left_does_not_begin(subject, cat, comes_back):
    latest, wanted = sweep.Latest(), unlike_before()
    sweep._leave(latest, SimpleNamespace(value="Inspect"))
    wanted = unlike_before() if comes_back else wanted
    asked = subject.answer(sweep._sweep, 5, first=sweep.end_before)
    given = [subject.library.names[0], cat, None, ["cat"], {}, None, latest, wanted, "alpha", "0, 1"]
    shown = list(asked(*given, sweep.NOTHING, "", "valid", 0.8, 10, 0.6, 0.7, 0.2, [1, 2], False))
    assert bool(shown) == comes_back
    assert not shown or all(button.interactive for button in shown[-1][3:])


def test_an_answer_to_the_photograph_before_replaces_nothing(subject, cat, monkeypatch):
    other, states = cat[:, ::-1].copy(), {}
    asked = {
        "blocks": SimpleNamespace(state_holder={"visitor": states}),
        "request": SimpleNamespace(session_hash="visitor"),
    }
    for name, value in asked.items():
        monkeypatch.setattr(sessions.LocalContext, name, ContextVar(name))
        getattr(sessions.LocalContext, name).set(value)
    answer = subject.answer(lambda scene: (1, 2), 2)
    for now, shown in ((cat, (1, 2)), (other, [gr.skip()] * 2)):
        states[subject.rgb._id] = now
        assert answer(subject.library.names[0], cat, None, ["cat"], {}, None) == shown


def test_a_ground_truth_tells_right_from_wrong(scene):
    mask = scene.predictor.mask(scene.encoding)
    truth = np.where(mask > 0, 1, 0).astype(np.uint8)  # the cat's; then all is right
    truth[0] = 255
    (_, right), names, _ = inspect._mask(scene._replace(truth=truth), 1.0, 0.0, "SPR", inspect.JUDGED)
    assert "mean IoU 100.0 %" in names and "cat 100.0 %" in names
    assert {tuple(color) for color in right[mask == 1]} <= {(60, 170, 90), *map(tuple, right[0])}
    assert (right[1:] != np.array((225, 60, 60))).any(-1).all()
    (_, wrong), *_ = inspect._mask(scene._replace(truth=np.where(mask > 0, 0, 1)), 1.0, 0.0, "SPR", inspect.JUDGED)
    assert (wrong == np.array((225, 60, 60))).all()


def test_the_ground_truth_can_be_looked_at_itself(scene):
    truth = np.zeros(scene.encoding.rgb.shape[:2], np.uint8)
    truth[:20] = 1
    (_, shown), names, _ = inspect._mask(scene._replace(truth=truth), 1.0, 0.0, "SPR", inspect.TRUTH)
    assert (shown[1:19, 1:-1] == scene.colors[1]).all() and scene.predictor.classes[0] in names


def test_a_mask_without_labels_is_not_judged(scene):
    nothing = np.full(scene.encoding.rgb.shape[:2], 255, np.uint8)
    _, names, _ = inspect._mask(scene._replace(truth=nothing), 1.0, 0.0, "SPR", inspect.JUDGED)
    assert "no pixel" in names and "nan" not in names


def test_right_or_wrong_without_a_ground_truth_asks_for_one(scene):
    (_, shown), names, _ = inspect._mask(scene, 0.5, 0.0, "SPR", inspect.JUDGED)
    (_, usual), *_ = inspect._mask(scene, 0.5, 0.0, "SPR", inspect.MASK)
    assert np.array_equal(shown, usual) and "give one" in names


def test_a_class_has_the_visitors_color_where_one_was_chosen(scene):
    name = scene.predictor.classes[1]
    own = scene._replace(own_colors={name: (1, 2, 3), "of another checkpoint": (4, 5, 6)}).colors
    assert tuple(own[2]) == (1, 2, 3)
    assert np.array_equal(np.delete(own, 2, 0), np.delete(scene.predictor.colors, 2, 0))
    assert np.array_equal(recolored(own, scene.predictor.classes, {}), own)


@pytest.mark.parametrize(
    ("text", "color"),
    [("#00FF7f", (0, 255, 127)), ("rgb(1, 2, 3)", (1, 2, 3)), ("rgba(254.6, 0.2, 9, 0.5)", (255, 0, 9))],
)
def test_colors_are_read_as_browsers_write_them(text, color):
    assert parse(text) == color


@pytest.mark.parametrize(
    "text", ["", "red", "#12345", "rgb(256, 0, 0)", "rgb(1, 2)", "rgb(-1, 2, 3)", None, ["#000000"]]
)
def test_what_is_no_color_is_refused(text):
    with pytest.raises(UserError, match="not a color"):
        parse(text)


def test_a_setting_of_a_checkpoint_beyond_the_end_of_its_slider_is_told(recwarn):
    slider = gr.Slider(1, 16, 7, label="R1")
    assert [reset._told(slider, 9), reset._told(gr.Checkbox(), True)] == [9, True] and not recwarn.list
    with pytest.warns(UserWarning, match="R1 of this checkpoint is 20; the slider ends at 16."):
        assert reset._told(slider, 20) == 16


def test_a_setting_that_was_ticked_off_and_on_again_is_not_moved(shipped_or_fresh, tmp_path):
    """Gradio has what is ticked in the order of the ticks."""
    for name, alpha in (("one", 0.2), ("other", 0.7)):
        (tmp_path / name).mkdir()
        content = json.loads((shipped_or_fresh / "config.json").read_text())
        content["config"]["alpha"] = alpha
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    with gr.Blocks() as page:
        chosen, controls = gr.Dropdown(["one", "other"]), [gr.Slider(0, 1), gr.CheckboxGroup([1, 2])]
        library = Library([tmp_path / "one", tmp_path / "other"])
        values, brought = lambda config: [config.alpha, [1, 2]], gr.State()
        reset.bring_settings(library, [chosen.input], [chosen, *controls], values, brought)
    (brings,) = (event.fn for event in page.fns.values())
    assert brings("other", 0.2, [2, 1])[:2] == [0.7, [1, 2]]
    assert brings("one", 0.2, [2, 1]) == brings("other", 0.3, [1, 2]) == [gr.skip()] * 3
