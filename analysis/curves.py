"""Plotly figures of runs and evaluations: losses and scores over the steps, class-wise bars, confusion matrix."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import plain, plain_text

MOST_POINTS = 800
"""Of one curve; a longer log is thinned out, so that the page stays quick."""

_COLORS = ("#4c8bf5", "#f28e2b", "#2ca58d", "#e15759", "#9c6ade", "#8a8d91", "#d4a72c", "#e377c2")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_LEGEND = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1.06, "yanchor": "bottom"}

LOSSES = {"total": "sum", "classification": "classification", "pixel": "pixel (Eq. 7)", "region": "region (Eq. 8)"}
SCHEDULES = {"region_weight": "lambda (Eq. 9)", "alpha": "alpha (Eq. 5)", "labelled": "labelled pixels"}
SCORES = {"miou": "mIoU", "mean_boundary_iou": "boundary IoU", "accuracy": "pixel accuracy"}
_TITLES = ("losses", "validation scores", "schedules", "learning rate")
_PANELS = ((LOSSES, 1, 1), (SCORES, 1, 2), (SCHEDULES, 2, 1), ({"lr": "learning rate"}, 2, 2))

MEASURES = {"iou": "IoU", "boundary_iou": "boundary IoU", "precision": "precision", "recall": "recall"}
"""Of each class in a report of `wsss.evaluate`."""


def training_curves(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> go.Figure:
    """All that the logs of one or of several runs hold, over their steps.

    Args:
        logs: rows of metrics.jsonl by the run's name. A curve of one run has its color from what it shows; with several
            runs that is its dash, and the color tells the run.
    """
    figure = make_subplots(
        2, 2, shared_xaxes="all", subplot_titles=_TITLES, vertical_spacing=0.16, horizontal_spacing=0.08
    )
    for number, (run, rows) in enumerate(logs.items()):
        for columns, row, column in _PANELS:
            for place, (key, words) in enumerate(columns.items()):
                curve = _curve(rows, key)
                if curve is None:
                    continue
                name = words if len(logs) == 1 else f"{run}: {words}"
                color, dash = (place, 0) if len(logs) == 1 else (number, place)
                figure.add_trace(_line(curve, name, _COLORS[color % len(_COLORS)], _DASHES[dash]), row, column)
    figure.update_xaxes(title="step", row=2).update_yaxes(rangemode="tozero").update_annotations(font_size=13)
    figure.update_yaxes(range=[0, 1], row=1, col=2)
    below = _LEGEND | {"y": -0.12, "yanchor": "top"}
    # The titles stand below the page's label.
    return plain(figure, 580).update_layout(legend=below, margin_b=110, margin_t=64)


def _curve(rows: Sequence[Mapping[str, float]], key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps and values where a log has them, at most `MOST_POINTS`; the last one is always among them."""
    known = [(row["step"], row[key]) for row in rows if key in row]
    if not known:
        return None
    kept = np.unique(np.linspace(0, len(known) - 1, min(len(known), MOST_POINTS)).astype(int))
    steps, values = np.array(known, float)[kept].T
    return steps, values


def _line(curve: tuple[np.ndarray, np.ndarray], name: str, color: str, dash: str) -> go.Scatter:
    steps, values = curve
    return go.Scatter(
        x=steps.tolist(),
        y=[float(f"{value:.5g}") for value in values],
        name=name,
        mode="lines+markers" if len(steps) < 40 else "lines",
        line={"color": color, "dash": dash, "width": 2},
        marker={"size": 5},
        hovertemplate="step %{x}: %{y:.4g}<extra>" + plain_text(name) + "</extra>",
    )


def class_bars(reports: Mapping[str, Mapping[str, Any]], measure: str = "iou") -> go.Figure:
    """A measure of each class (Tables 3 and 4), of one evaluation or of several side by side.

    Args:
        reports: of `wsss.evaluate`, by the evaluation's name.
        measure: one of `MEASURES`.
    """
    figure = go.Figure()
    names = list(dict.fromkeys(name for report in reports.values() for name in report["classes"]))
    for number, (label, report) in enumerate(reports.items()):
        values = [report["classes"].get(name, {}).get(measure) for name in names]
        bars = go.Bar(
            x=[plain_text(name) for name in names],
            y=[None if value is None else round(100 * value, 2) for value in values],
            name=plain_text(label),
            marker_color=_COLORS[number % len(_COLORS)],
            texttemplate="%{y:.0f}" if len(names) <= 24 else None,
            hovertemplate="%{x}: %{y:.2f} %<extra>" + plain_text(label) + "</extra>",
        )
        figure.add_trace(bars)
    title = {"text": f"{MEASURES[measure]} of each class (%)", "font_size": 13, "x": 0.5}
    return plain(figure, 320).update_layout(
        barmode="group", title=title, yaxis={"range": [0, 100]}, legend=_LEGEND | {"y": 1.0}, margin_b=50
    )


def confusion_figure(report: Mapping[str, Any], title: str = "") -> go.Figure:
    """The confusion matrix: each row is a true class, and its cells the shares of its pixels that got each class."""
    counts = np.array(report["confusion"], float)
    sums = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0)
    names = [plain_text(name) for name in report["classes"]]
    heat = go.Heatmap(
        x=names,
        y=names,
        z=[[None if np.isnan(value) else round(float(value), 2) for value in row] for row in shares],
        zmin=0,
        zmax=100,
        colorscale="Cividis",
        texttemplate="%{z:.0f}" if len(names) <= 12 else None,
        hovertemplate="%{z:.2f} % of true %{y} are called %{x}<extra></extra>",
    )
    words = f"confusion (% of the true class){': ' if title else ''}{plain_text(title)}"
    return plain(go.Figure(heat), 150 + 26 * len(names)).update_layout(
        title={"text": words, "font_size": 13, "x": 0.5},
        xaxis={"title": "predicted", "side": "bottom"},
        yaxis={"title": "true", "autorange": "reversed"},
        margin_b=60,
    )


def _start(percents: Iterable[Sequence[float]]) -> float:
    """Where an axis begins: at a round number below all, so that names of good classes do not lie on each other."""
    return max(0, min((10 * (value // 10) for part in percents for value in part), default=0) - 10)


def precision_recall_figure(reports: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """Precision against recall, a point for each class."""
    figure = go.Figure()
    for number, (label, report) in enumerate(reports.items()):
        known = [
            (name, row) for name, row in report["classes"].items() if None not in (row["precision"], row["recall"])
        ]
        points = go.Scatter(
            x=[round(100 * row["recall"], 2) for _, row in known],
            y=[round(100 * row["precision"], 2) for _, row in known],
            text=[plain_text(name) for name, _ in known],
            name=plain_text(label),
            mode="markers+text",
            textposition="top center",
            marker={"color": _COLORS[number % len(_COLORS)], "size": 9},
            hovertemplate="%{text}: recall %{x:.2f} %, precision %{y:.2f} %<extra>" + plain_text(label) + "</extra>",
        )
        figure.add_trace(points)
    title = {"text": "precision and recall of each class (%)", "font_size": 13, "x": 0.5}
    return plain(figure, 320).update_layout(
        title=title,
        xaxis={"title": "recall", "range": [_start(trace.x for trace in figure.data), 105]},
        yaxis={"title": "precision", "range": [_start(trace.y for trace in figure.data), 108]},
        legend=_LEGEND | {"y": 1.0},
        margin_b=50,
    )
