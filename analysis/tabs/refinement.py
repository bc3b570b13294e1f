"""The refinement (Eq. 5, 6) and the pseudo mask, step by step."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import plotly.graph_objects as go
import torch

from analysis.affinity import KINDS, draw, probe
from analysis.charts import affinity_bars, trajectory_figure
from analysis.exports import arrays_npz, mask_png
from analysis.legends import legend, swatches
from analysis.pseudo_settings import MOST_STEPS, PseudoSettings
from analysis.render import CAUSES, causes, film_strip, frame_width, heat, overlay
from analysis.tabs import download, reset
from analysis.tabs.chips import OneClass
from analysis.tabs.events import PRIVATE
from analysis.tabs.pictures import PICTURE, note, picture, pixel, slider
from analysis.tabs.scene import Scene
from analysis.tabs.subject import Subject, unlike_before
from analysis.trajectory import Trajectory, trajectory
from wsss.config import Config
from wsss.pseudo import to_mask
from wsss.refinement import DILATIONS

FILM = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30)
"""The steps that the film strip shows."""

_OPACITY = 0.55
_SECONDS_A_STEP = 0.4
_BY_OBJECTS = "Eq. 5: its score is then the highest of theirs; its own is constant (0/0), so colors alone decide"


class Controls(NamedTuple):
    """What the visitor moves: the fields of `PseudoSettings`, and whose maps are shown."""

    alpha: gr.Slider
    steps: gr.Slider
    object_cutoff: gr.Slider
    background_cutoff: gr.Slider
    least_cutoff: gr.Slider
    dilations: gr.CheckboxGroup
    background_affinity: gr.Checkbox
    shown: gr.Dropdown


class Pictures(NamedTuple):
    """What moves with them."""

    after: gr.Image
    pseudo: gr.Image
    names: gr.HTML
    unlabelled: gr.Image


def build(subject: Subject) -> dict[str, gr.components.Component]:
    """Lay out the tab and wire it, inside open gr.Tabs. Returns its settings by name."""
    with gr.Tab("Refinement", id="Refinement") as tab, gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            controls = _controls(subject)
            with gr.Row():
                play = gr.Button("Play", size="sm", min_width=70)
                set_back = reset.build(subject, controls[:-1], _values)
            download.build(subject, "pseudo-mask", _files, controls, controls._fields)
            timer, playing, rested = gr.Timer(_SECONDS_A_STEP, active=False), gr.State(False), gr.State()
        with gr.Column(scale=5, min_width=340):
            before, pictures, film = _pictures()
            curves, kind, probe_pictures = _details()
    subject.follow(tab, _show, [*controls, kind], [controls.shown, before, *pictures, *probe_pictures])
    _wire_play(play, timer, playing, controls.steps, rested)
    subject.follow(tab, _steps, controls, [film, curves])
    subject.live([control.change for control in controls[:-1]], _pictured, controls, pictures, api_name="pseudo")
    _wire_rest(subject, controls, kind, rested, [film, curves], probe_pictures, [before, pictures.after])
    clicked = pictures.pseudo.select(pixel, None, subject.clicked, **PRIVATE)
    subject.then(clicked.then, _probed, [*controls, kind], probe_pictures)
    stepped = film.select(_step_of, subject.rgb, controls.steps, **PRIVATE)
    subject.then(stepped.then, _steps, controls, [film, curves])
    for done in set_back:
        subject.then(done.then, _rest, [*controls, kind], [film, curves, *probe_pictures])
    names = ("alpha", "T", "threshold", "background_threshold", "floor", "dilations", "by_objects", "maps_of")
    return dict(zip((*names, "weights"), (*controls, kind), strict=True))


def _controls(subject: Subject) -> Controls:
    first = subject.default
    alpha, steps, object_cutoff, background_cutoff, floor, dilations, by_objects = _values(first.config)
    with gr.Group():
        return Controls(
            slider("alpha", alpha, "1: colors only, as PAMR; 0: classes only (Eq. 5)"),
            slider("T", min(steps, MOST_STEPS), "refinement steps (Eq. 6)", MOST_STEPS, 1),
            slider("threshold", object_cutoff, "an object claims scores over this share of its maximum (Sec. 4.1.3)"),
            slider("background threshold", background_cutoff, "the same for the background"),
            slider("floor", floor, "least score that claims a pixel"),
            gr.CheckboxGroup(list(DILATIONS), value=dilations, label="dilations", info="distances of the neighbours"),
            gr.Checkbox(by_objects, label="background affinity from the objects", info=_BY_OBJECTS),
            OneClass(["background", *first.classes], value=None, label="maps of the class"),
        )


def _values(config: Config) -> list[Any]:
    """The settings' values that a config asks for."""
    cutoffs = [config.object_cutoff, config.background_cutoff, config.least_cutoff]
    return [config.alpha, config.refine_steps, *cutoffs, list(DILATIONS), config.background_affinity]


def _pictures() -> tuple[gr.Image, Pictures, gr.Image]:
    with gr.Row():
        before = picture("m_0: not refined yet")
        after = picture("m_T: after T steps")
    note("scores of the class whose maps are shown, from 0 (black) to 1 (bright yellow)")
    with gr.Row():
        with gr.Column(min_width=200):
            pseudo = picture("Pseudo mask: click a pixel")
            names = gr.HTML()
        with gr.Column(min_width=200):
            unlabelled = picture("Unlabelled pixels")
            gr.HTML(swatches(CAUSES))
    film = gr.Image(label="Step by step: click one", elem_classes="film", **PICTURE)
    return before, Pictures(after, pseudo, names, unlabelled), film


def _details() -> tuple[gr.Plot, gr.Radio, list[gr.components.Component]]:
    """The curves; of the affinity probe the kind of weight that is drawn, and its three pictures."""
    with gr.Row():
        drawn = picture("The pixel's neighbours")
        near = picture("The nearest rings, enlarged")
    note("the larger and brighter a circle, the more its pixel weighs; the greatest weight has the largest")
    kind = gr.Radio(KINDS[::-1], value="joint", label="Weights drawn", info="joint: both, mixed by alpha (Eq. 5)")
    bars = gr.Plot(label="The pixel's weights (Eq. 5)")
    return gr.Plot(label="Step by step"), kind, [drawn, near, bars]


def _read(values: Sequence[Any]) -> tuple[PseudoSettings, str]:
    """The settings, and the name of the class whose maps are shown, from the values of `Controls`."""
    *settings, shown = values
    return PseudoSettings(*settings), shown


def _show(scene: Scene, *given) -> tuple:
    """All that the tab shows of a new subject but its steps; its maps are an object's, where there is one."""
    *values, shown, kind = given
    names = ["background", *scene.present]  # maps of other classes are 0
    is_here = shown in names
    shown = shown if is_here else scene.likeliest if scene.present else "background"
    before = _heat(scene, PseudoSettings(*values), shown, 0)
    probed = _probed(scene, *values, shown, kind)
    choice = gr.update(choices=names, **({} if is_here else {"value": shown}))  # another may be chosen meanwhile
    return choice, before, *_pictured(scene, *values, shown), *probed


def _heat(scene: Scene, settings: PseudoSettings, name: str, step: int) -> np.ndarray:
    """A class's map after a step; black is 0, bright is 1."""
    names = "background", *scene.predictor.classes
    maps = scene.predictor.iterates(scene.encoding, scene.present, settings)
    k = names.index(name) if name in names else 0
    return heat(maps[step, k].cpu().numpy(), scene.encoding.rgb.shape[:2], limits=(0, 1))


def _pictured(scene: Scene, *values) -> tuple:
    """What moves with a slider, in the order of `Pictures`."""
    predictor, encoding, (settings, shown) = scene.predictor, scene.encoding, _read(values)
    claimed = predictor.claims(encoding, scene.present, settings)
    mask = to_mask(claimed[None])[0].byte().cpu().numpy()
    laid = overlay(encoding.rgb, mask, scene.colors, _OPACITY)
    names = legend(mask, predictor.classes, scene.colors)
    unlabelled = causes(encoding.rgb, claimed.sum(0, dtype=torch.uint8).cpu().numpy())
    return _heat(scene, settings, shown, int(settings.steps)), laid, names, unlabelled


def _files(scene: Scene, *values) -> dict[str, bytes]:
    settings, _ = _read(values)
    maps = scene.predictor.iterates(scene.encoding, scene.present, settings)
    mask = scene.predictor.pseudo(scene.encoding, scene.present, settings)
    return {
        "pseudo_mask.png": mask_png(mask, scene.predictor.classes),
        "arrays.npz": arrays_npz(
            before=maps[0].cpu().numpy(), after=maps[int(settings.steps)].cpu().numpy(), pseudo_mask=mask
        ),
    }


def _steps(scene: Scene, *values) -> tuple[np.ndarray, go.Figure]:
    """The film strip and the curves. Another T only moves the line in these: the rest is remembered."""
    settings, _ = _read(values)
    step, of_all = int(settings.steps), replace(settings, steps=0)
    truth = None if scene.truth is None else hashlib.sha1(scene.truth.tobytes(), usedforsecurity=False).hexdigest()
    key = scene.encoding.key, tuple(scene.present), of_all, scene.colors.tobytes(), truth
    film, curves = scene.predictor.films.get_unlocked(key, lambda: _all_steps(scene, of_all))
    return film, trajectory_figure(curves, step)


def _all_steps(scene: Scene, settings: PseudoSettings) -> tuple[np.ndarray, Trajectory]:
    curves = trajectory(scene.predictor, scene.encoding, scene.present, settings, truth=scene.truth)
    return _film(scene, settings), curves


def _film(scene: Scene, settings: PseudoSettings) -> np.ndarray:
    predictor, size = scene.predictor, tuple(scene.encoding.maps.shape[-2:])
    masks = [predictor.pseudo(scene.encoding, scene.present, replace(settings, steps=t), size) for t in FILM]
    return film_strip(scene.encoding.rgb, masks, scene.colors, [f"t = {t}" for t in FILM])


def _rest(scene: Scene, *given) -> tuple:
    """What waits until a slider is let go: the steps, which need the pseudo masks of all of them, and the probe."""
    return *_steps(scene, *given[:-1]), *_probed(scene, *given)


def _of_class(scene: Scene, *given) -> tuple:
    """What another class to look at changes: its map before and after, and its weights."""
    settings, shown = _read(given[:-1])
    heats = (_heat(scene, settings, shown, step) for step in (0, int(settings.steps)))
    return *heats, *_probed(scene, *given)


def _probed(scene: Scene, *given) -> tuple:
    *values, kind = given
    (settings, shown), rgb = _read(values), scene.encoding.rgb
    shown = shown if shown in scene.predictor.classes else "background"
    seen = probe(scene.predictor, scene.encoding, scene.pixel, shown, scene.present, settings)
    near = settings.dilations[(len(settings.dilations) - 1) // 2]
    return draw(rgb, seen, kind), draw(rgb, seen, kind, within=near), affinity_bars(seen, settings.alpha)


def _wire_rest(
    subject: Subject,
    controls: Controls,
    kind: gr.Radio,
    rested: gr.State,
    steps: list[gr.components.Component],
    probed: list[gr.components.Component],
    heats: list[gr.components.Component],
) -> None:
    """All that does not move with a slider; `rested` changes after playing. An event has one answer: `Subject.live`."""
    asked = [*controls, kind]
    of_both = [controls.alpha.release, controls.dilations.input, controls.background_affinity.input]
    subject.live(of_both, _rest, asked, [*steps, *probed])
    others = [control.release for control in controls[1:] if isinstance(control, gr.Slider)]
    subject.live([*others, rested.change], _steps, controls, steps)
    subject.live([kind.input], _probed, asked, probed)
    subject.live([controls.shown.input], _of_class, asked, [*heats, *probed])


def _step_of(rgb: np.ndarray | None, event: gr.SelectData) -> Any:
    """The step of the clicked frame of the photograph's film strip; nothing where the photograph was forgotten."""
    if rgb is None:
        return gr.skip()
    return FILM[min(len(FILM) - 1, event.index[0] // frame_width(rgb))]


def _wire_play(play: gr.Button, timer: gr.Timer, playing: gr.State, steps: gr.Slider, rested: gr.State) -> None:
    """The button moves T from 0 to its end, and stops there; `rested` changes when T does not move any more."""

    def toggle(is_playing: bool) -> tuple:
        starts = not is_playing
        return (
            starts,
            gr.Timer(active=starts),
            gr.Button("Stop" if starts else "Play"),
            0 if starts else gr.skip(),
            gr.skip() if starts else unlike_before(),
        )

    def end(is_playing: bool, step: float) -> tuple:
        if not is_playing or step < MOST_STEPS:
            return (gr.skip(),) * 4
        return False, gr.Timer(active=False), gr.Button("Play"), unlike_before()

    in_turn = PRIVATE | {"concurrency_id": "play", "concurrency_limit": 1}
    play.click(toggle, playing, [playing, timer, play, steps, rested], **in_turn)
    # By the browser: an answer of the server would set T back that the visitor has moved meanwhile.
    timer.tick(None, steps, steps, js=f"step => Math.min(step + 1, {MOST_STEPS})", **PRIVATE)
    timer.tick(end, [playing, steps], [playing, timer, play, rested], **in_turn)
