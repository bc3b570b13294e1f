"""The shape cue (Eq. 3, 4): what is shape and what is texture; all but the features' energy needs no training."""

from typing import Any, NamedTuple

import gradio as gr
import plotly.graph_objects as go

from analysis.charts import information_histogram
from analysis.exports import arrays_npz, picture_png
from analysis.legends import line
from analysis.render import black_and_white, heat
from analysis.shape_cues import MOST_RADIUS, ShapeCues, feature_energy, shallow_features, shape_cues
from analysis.tabs import download, reset
from analysis.tabs.pictures import Number, Slider, note, picture
from analysis.tabs.scene import Scene
from analysis.tabs.subject import Subject
from wsss.config import Config


class Controls(NamedTuple):
    """What the visitor moves."""

    radius: gr.Slider
    bandwidth: gr.Slider
    temperature: gr.Slider
    samples: gr.Slider
    patch: gr.Slider
    drop_rate: gr.Slider
    relative: gr.Checkbox
    seed: gr.Number


class Pictures(NamedTuple):
    """What moves with them."""

    information: gr.Image
    limits: gr.HTML
    drop: gr.Image
    dropped: gr.Image
    dropped_share: gr.HTML
    before: gr.Image
    after: gr.Image
    energy: gr.HTML


def build(subject: Subject) -> dict[str, gr.components.Component]:
    """Lay out the tab and wire it, inside open gr.Tabs. Returns its settings by name."""
    with gr.Tab("Shape cues", id="Shape cues") as tab, gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            controls = _controls()
            with gr.Row():
                set_back = reset.build(subject, controls, _values)
            download.build(subject, "shape-cues", _files, controls, controls._fields)
        with gr.Column(scale=5, min_width=340):
            pictures, histogram = _pictures()
    subject.follow(tab, _pictured, controls, pictures)
    subject.follow(tab, _counted, controls, [histogram])
    let_go = [control.release for control in controls if isinstance(control, gr.Slider)]
    subject.live([*let_go, controls.relative.input, controls.seed.input], _counted, controls, [histogram])
    subject.live([control.change for control in controls], _pictured, controls, pictures, api_name="shape_cues")
    for done in set_back:
        subject.then(done.then, _counted, controls, [histogram])
    names = ("R1", "bandwidth", "tau", "samples", "patch", "drop_rate", "relative", "seed")
    return dict(zip(names, controls, strict=True))


def _values(config: Config) -> list[Any]:
    return [
        config.info_radius,
        config.info_bandwidth,
        config.drop_temperature,
        config.info_samples,
        config.info_patch,
        config.network_drop_rate,
        config.info_relative,
        0,
    ]


def _controls() -> Controls:
    radius, bandwidth, temperature, samples, patch, rate, relative, seed = _values(Config())
    with gr.Group():
        return Controls(
            Slider(1, MOST_RADIUS, radius, step=1, label="R1", info="Manhattan radius of the neighbourhood, pixels"),
            Slider(0.05, 3, bandwidth, step=0.05, label="bandwidth", info="h of Eq. 3; colors lie in [0, 1]"),
            Slider(0.05, 3, temperature, step=0.05, label="tau", info="temperature of Eq. 4"),
            Slider(0, 112, samples, step=1, label="samples", info="neighbours drawn for Eq. 3; 0: all, 112 of R1 = 7"),
            Slider(1, 5, patch, step=2, label="patch", info="side of the compared patches, pixels"),
            Slider(
                0, 3, rate, step=0.1, label="drop rate", info="e^-rate of the features stay, more where some inform"
            ),
            gr.Checkbox(relative, label="relative distances", info="in units of the photograph's mean distance"),
            Number(seed, label="seed", info="of the drawn neighbours and of the drop", precision=0, minimum=0),
        )


def _pictures() -> tuple[Pictures, gr.Plot]:
    with gr.Row():
        with gr.Column(min_width=220):
            information = picture("Self-information (Eq. 3)")
            limits = gr.HTML()
        with gr.Column(min_width=220):
            drop = picture("Drop probability (Eq. 4)")
            note("from 0 (black) to 1 (bright yellow)")
        with gr.Column(min_width=220):
            dropped = picture("One draw: black is dropped")
            share = gr.HTML()
    with gr.Row():
        with gr.Column(min_width=220):
            before = picture("Energy of the features")
            note("mean square over the channels, both in the same colors")
        with gr.Column(min_width=220):
            after = picture("After a drop (mean)")
            energy = gr.HTML()
        histogram = gr.Plot(label="Self-information of the pixels")
    return Pictures(information, limits, drop, dropped, share, before, after, energy), histogram


def _cues(scene: Scene, values: tuple) -> ShapeCues:
    """The cues of the photograph at the size at which the checkpoint's network looks at it."""
    given = dict(zip(Controls._fields, values, strict=True))
    short_side = scene.predictor.config.test_short_side
    key = scene.encoding.key, repr(values)  # which came over the network and may be anything
    return scene.predictor.cues.get(key, lambda: shape_cues(scene.encoding.rgb, **given, short_side=short_side))


def _files(scene: Scene, *values) -> dict[str, bytes]:
    cues = _cues(scene, values)
    return {
        "information.png": picture_png(heat(cues.information, scene.encoding.rgb.shape[:2])),
        "arrays.npz": arrays_npz(information=cues.information, drop=cues.drop, dropped=cues.dropped),
    }


def _pictured(scene: Scene, *values) -> tuple:
    """What moves with a slider, in the order of `Pictures`."""
    rgb = scene.encoding.rgb
    cues = _cues(scene, values)
    size, nats = rgb.shape[:2], cues.information
    features = scene.predictor.kept.get(
        ("shallow", scene.encoding.key), lambda: shallow_features(scene.predictor, scene.encoding)
    )
    given = dict(zip(Controls._fields, values, strict=True))
    before, after = feature_energy(features, nats, temperature=given["temperature"], drop_rate=given["drop_rate"])
    limits = 0.0, float(before.max())
    unused = "" if scene.predictor.drops else "; this checkpoint drops nothing: so SCM would"
    return (
        heat(nats, size),
        line(f"bright is shape, dark is texture; {nats.min():.3f} to {nats.max():.3f} nats"),
        heat(cues.drop, size, limits=(0, 1)),
        black_and_white(~cues.dropped, size),
        line(f"{100 * cues.dropped.mean():.0f} % of the positions are dropped"),
        heat(before, size, limits=limits),
        heat(after, size, limits=limits),
        line(f"{100 * after.sum() / max(before.sum(), 1e-12):.0f} % of the energy is left" + unused),
    )


def _counted(scene: Scene, *values) -> go.Figure:
    """A figure is slow to draw, so it waits until a slider is let go."""
    return information_histogram(_cues(scene, values))
