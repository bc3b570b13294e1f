"""Class activation maps of encoder, shape cue and decoder (Fig. 1 and 8)."""

from typing import NamedTuple

import gradio as gr
import numpy as np

from analysis.exports import arrays_npz, picture_png
from analysis.gradcam import METHODS, SLOW_METHODS, TARGETS, Cam, coverage, estimated_seconds, explain
from analysis.gradcam import overlay as cam_overlay
from analysis.legends import line
from analysis.render import captioned, grid, marked, overlay
from analysis.tabs import download
from analysis.tabs.chips import OneClass
from analysis.tabs.events import PRIVATE
from analysis.tabs.pictures import moved, picture, pixel, slider
from analysis.tabs.scene import Scene
from analysis.tabs.subject import Subject
from wsss import UserError

_PIXEL = TARGETS[2]
_SCALES = ("each map's own maximum", "the maximum of all maps of the method")


class Controls(NamedTuple):
    """What the visitor chooses."""

    name: gr.Dropdown
    target: gr.Radio
    methods: gr.CheckboxGroup
    scale: gr.Radio
    opacity: gr.Slider


class Pictures(NamedTuple):
    """What is shown."""

    region: gr.Image
    score_map: gr.Image
    maps: gr.Image


def build(subject: Subject) -> dict[str, gr.components.Component]:
    """Lay out the tab and wire it, inside open gr.Tabs. Returns its settings by name."""
    with gr.Tab("CAMs", id="CAMs") as tab, gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            controls = _controls(subject)
            slow, run, estimate = _slow_controls()
            download.build(subject, "cams", _files, controls, controls._fields)
        with gr.Column(scale=5, min_width=340):
            with gr.Row():
                region = picture("Predicted region: click a pixel")
                score_map = picture("CAM: this network's score map")
            maps = picture("Methods by stages", "film")
        seen = gr.State()  # digest of the photograph that was shown last
    pictures = Pictures(region, score_map, maps)
    subject.follow(tab, _show, [*controls, seen], [controls.name, controls.target, *pictures, seen])
    subject.live(moved(controls), _pictured, controls, pictures, show_progress="minimal")
    clicked = region.select(_pixel, None, [subject.clicked, controls.target], **PRIVATE)
    subject.then(clicked.then, _pictured, controls, pictures)
    subject.live([slow.input], _estimated, [slow], [estimate])
    waiting = {"show_progress": "full", "show_progress_on": [maps], "trigger_mode": "once", "queue": True}
    # Drawn as everything else, for the photograph and class of that moment: a visitor may have moved on meanwhile.
    subject.then(
        subject.live([run.click], _run, [*controls[:2], slow], [], **waiting).then, _pictured, controls, pictures
    )
    names = ("cam_class", "cam_target", "methods", "scale", "cam_opacity")
    return dict(zip(names, controls, strict=True))


def _controls(subject: Subject) -> Controls:
    with gr.Group():
        return Controls(
            OneClass(list(subject.default.classes), value=None, label="Class", info="whose evidence is shown"),
            gr.Radio(list(TARGETS), value=TARGETS[0], label="Target", info="the score that the maps explain"),
            gr.CheckboxGroup(
                list(METHODS),
                value=["GradCAM", "LayerCAM"],
                label="Methods",
                info="EigenCAM's map is the features' main pattern, whatever the class",
            ),
            gr.Radio(list(_SCALES), value=_SCALES[0], label="Colors are relative to"),
            slider("opacity", 0.6, "of the maps"),
        )


def _slow_controls() -> tuple[gr.Dropdown, gr.Button, gr.HTML]:
    with gr.Accordion("Slow methods", open=False):
        slow = gr.Dropdown(
            list(SLOW_METHODS), value=None, label="Method", info="runs the network once for each channel"
        )
        estimate = gr.HTML()
        return slow, gr.Button("Run it", size="sm"), estimate


def _show(scene: Scene, given, asked, methods, scale, opacity, seen) -> tuple:
    """All that the tab shows of a subject; a target that was a pixel of the photograph before is given up.

    A class that is not in the photograph may be asked for, by hand or by a link; the next photograph has its own. What
    stays as it is is not answered: the visitor may have chosen another meanwhile.
    """
    is_next, name = seen not in (None, scene.encoding.key), given
    if name not in (scene.present if is_next else scene.predictor.classes):
        name = scene.likeliest
    target = TARGETS[0] if asked == _PIXEL and scene.clicked is None else asked
    names = gr.update(choices=list(scene.predictor.classes), **({} if name == given else {"value": name}))
    pictures = _pictured(scene, name, target, methods, scale, opacity)
    return names, gr.skip() if target == asked else target, *pictures, scene.encoding.key


def _pictured(scene: Scene, name, target, methods, scale, opacity) -> tuple:
    """What moves with a choice, in the order of `Pictures`."""
    name = _known(scene, name)
    score_map, *cams = _explained(scene, name, target, tuple(methods))
    region = _region(scene.predictor.mask(scene.encoding), scene, name)
    colors = scene.colors[[0, scene.predictor.index(name)]]
    shown = overlay(scene.encoding.rgb, region.astype(np.uint8), colors, 0.55)
    drawn = _captioned(scene, score_map, name, opacity, None)
    return marked(shown, scene.clicked), drawn, _grid(scene, cams, name, scale, opacity)


def _known(scene: Scene, name: str | None) -> str:
    """The class that was asked for; where it was one of the checkpoint before, the likeliest."""
    return name if name in scene.predictor.classes else scene.likeliest


def _grid(scene: Scene, cams: list[Cam], name: str, scale: str, opacity: float) -> np.ndarray | None:
    """One row a method, one column a stage; None where no method is chosen."""
    rows = []
    for method in dict.fromkeys(cam.method for cam in cams):
        maps = [cam for cam in cams if cam.method == method]
        most = max(cam.high for cam in maps) if scale == _SCALES[1] else None
        rows.append([_captioned(scene, cam, name, opacity, most) for cam in maps])
    return grid(rows) if rows else None


def _explained(scene: Scene, name: str, target: str, methods: tuple[str, ...]) -> list[Cam]:
    """The maps of the chosen methods, and those of slow ones that were run and are still remembered."""
    kept, keys = scene.predictor.kept, [_key(scene, name, target, (slow,)) for slow in SLOW_METHODS]
    with kept.lock:  # taken before others are added, which may put them away: to make them again takes a minute
        run = [cam for key in keys if key in kept for cam in kept.get(key, list)[1:]]
    return [*_remembered(scene, name, target, methods), *run]


def _key(scene: Scene, name: str, target: str, methods: tuple[str, ...]) -> tuple:
    """What the maps depend on, for `Predictor.kept`. Raises UserError where the pixel to ask for is not clicked yet."""
    if target == _PIXEL and scene.clicked is None:
        raise UserError("click a pixel of the predicted region first")
    return "cams", scene.encoding.key, name, target, methods, tuple(scene.clicked) if target == _PIXEL else None


def _remembered(scene: Scene, name: str, target: str, methods: tuple[str, ...]) -> list[Cam]:
    """Sliders that only change how maps are drawn ask for the same maps again."""
    *_, at = key = _key(scene, name, target, methods)
    return scene.predictor.kept.get_unlocked(  # a slow method takes a minute, grad-cam's import ten seconds
        key, lambda: explain(scene.predictor, scene.encoding, name, methods=methods, target=target, pixel=at)
    )


def _region(mask: np.ndarray, scene: Scene, name: str) -> np.ndarray:
    """Where a mask has the class, (H, W) bool."""
    return mask == scene.predictor.index(name)


def _captioned(scene: Scene, cam: Cam, name: str, opacity: float, most: float | None) -> np.ndarray:
    """A map over the photograph, with its range and how much of the true object it covers, else of the predicted."""
    has_truth = scene.truth is not None
    mask = scene.truth if has_truth else scene.predictor.mask(scene.encoding)
    covered, inside = coverage(cam, _region(mask, scene, name))
    lines = [f"{cam.stage}, {cam.method}: {cam.low:.2g} to {cam.high:.2g}"]
    if np.isnan(covered):
        lines.append(f"no region of the class is {'in the truth' if has_truth else 'predicted'}")
    else:
        whose = "true" if has_truth else "predicted"
        lines.append(f"over half its maximum: {100 * covered:.0f} % of the {whose} object;")
        lines.append(
            "no part of the map is above 0" if np.isnan(inside) else f"{100 * inside:.0f} % of that lies inside"
        )
    return captioned(cam_overlay(scene.encoding.rgb, cam.scaled(most), opacity), lines)


def _estimated(scene: Scene, method) -> str:
    seconds = estimated_seconds(scene.predictor, scene.encoding, method)
    return line(f"about {seconds:.0f} s on this machine")


def _run(scene: Scene, name, target, slow) -> None:
    """The maps of a slow method, to be remembered."""
    if slow is None:
        raise UserError("choose a slow method first")
    _remembered(scene, _known(scene, name), target, (slow,))


def _files(scene: Scene, name, target, methods, scale, opacity) -> dict[str, bytes]:
    name = _known(scene, name)
    cams = _explained(scene, name, target, tuple(methods))
    drawn = _grid(scene, cams[1:], name, scale, opacity)
    arrays = {f"{cam.stage} {cam.method}".replace(" ", "_"): cam.values for cam in cams}
    return {"arrays.npz": arrays_npz(**arrays)} | ({} if drawn is None else {"cams.png": picture_png(drawn)})


def _pixel(event: gr.SelectData) -> tuple:
    return pixel(event), _PIXEL
