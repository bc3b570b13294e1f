"""Plotly figures of the analyses: curves, bars, small heat maps. Pictures are arrays; see `render`."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.affinity import KINDS, Probe
from analysis.compare import Comparison
from analysis.figures import plain, plain_text
from analysis.shape_cues import ShapeCues
from analysis.sweeps import MEASURES, Axis, Cell
from analysis.trajectory import Trajectory

_BLUE, _ORANGE, _GREEN, _RED = "#4c8bf5", "#f28e2b", "#2ca58d", "#e15759"
_BINS = 60
_CALM = "rgba(128,128,128,0.6)"


def information_histogram(cues: ShapeCues) -> go.Figure:
    """How often each self-information and each drop probability occurs in the photograph."""
    figure = make_subplots(1, 2, subplot_titles=("self-information (nats)", "drop probability"))
    for column, values, color in ((1, cues.information, _BLUE), (2, cues.drop, _ORANGE)):
        counts, edges = np.histogram(values, _BINS)
        bars = go.Bar(
            x=(edges[1:] + edges[:-1]) / 2,
            width=edges[1] - edges[0],
            y=np.round(100 * counts / values.size, 3),
            marker_color=color,
            hovertemplate="%{x:.3f}: %{y:.1f} % of the pixels<extra></extra>",
        )
        figure.add_trace(bars, 1, column)
    figure.update_layout(bargap=0, showlegend=False, yaxis_ticksuffix=" %", yaxis2_ticksuffix=" %")
    return _small_titles(plain(figure, 260)).update_layout(margin_t=64)  # its titles stand below the page's label


def trajectory_figure(curves: Trajectory, at: int | None = None) -> go.Figure:
    """The curves of the refinement over its steps.

    Args:
        at: the step that is shown elsewhere, marked by a line.
    """
    titles = ("shares of the pseudo mask", "change of the maps", "length of the outlines (pixels)")
    figure = make_subplots(3, 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.12)
    lines = [(1, "labelled pixels", curves.valid, _BLUE, "%{y:.3f}")]
    if curves.iou is not None:
        lines.append((1, "mean IoU of the labelled pixels", curves.iou, _GREEN, "%{y:.3f}"))
    lines += [
        (2, "change", curves.change, _ORANGE, "%{y:.2e}"),
        (3, "outlines", curves.boundary, _RED, "%{y:.0f}"),
    ]
    for row, name, values, color, form in lines:
        line = go.Scatter(
            x=np.arange(len(values)),
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": color},
            marker={"size": 4},
            showlegend=row == 1,
            hovertemplate=f"T = %{{x}}: {form}<extra>{name}</extra>",
        )
        figure.add_trace(line, row, 1)
    if at is not None:
        figure.add_vline(at, line={"color": _CALM, "dash": "dot"})
    figure.update_yaxes(rangemode="tozero").update_yaxes(range=[0, 1.02], row=1).update_xaxes(title="T", row=3)
    legend = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1.08, "yanchor": "bottom"}
    figure = _small_titles(plain(figure, 460)).update_layout(legend=legend)
    return figure.update_layout(margin={"t": 64, "b": 40})


def affinity_bars(seen: Probe, alpha: float) -> go.Figure:
    """The weights of a pixel's neighbours as bars, by ring and direction; the line is the weight of all being alike."""
    names = ("color (alpha = 1)", "class (alpha = 0)", f"joint (alpha = {alpha:g})")
    rings = [f"distance {dilation}" for dilation in seen.dilations]
    figure = go.Figure()
    for kind, name, color in zip(KINDS, names, (_BLUE, _ORANGE, _GREEN), strict=True):
        bars = go.Bar(
            x=[rings, list(seen.directions)],
            y=seen.weights[kind],
            name=name,
            marker_color=color,
            hovertemplate="%{x}: %{y:.3f}<extra>" + name + "</extra>",
        )
        figure.add_trace(bars)
    figure.add_hline(1 / len(rings), line={"color": _CALM, "dash": "dot"})
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return plain(figure, 320).update_layout(
        barmode="group",
        bargap=0.15,
        legend=legend,
        xaxis={"dtick": 1, "tickangle": 0, "tickfont_size": 10},
        yaxis={"title": "weight", "rangemode": "tozero"},
        margin_b=50,
    )


def sweep_figure(cells: Sequence[Cell], rows: Axis, columns: Axis | None, measure: str) -> go.Figure:
    """A curve over the rows' values, or a heat map where there are columns; cells that are not there yet are gaps.

    Args:
        measure: from `sweeps.MEASURES`.
    """
    values = np.full((len(rows.values), len(columns.values) if columns else 1), np.nan)
    for cell in cells:
        values[cell.row, cell.column] = cell.measures[measure]
    title = {"text": MEASURES[measure], "font_size": 13, "x": 0.5}
    if columns is None:
        form = f"{rows.name} = %{{x:g}}: %{{y:.3f}}<extra></extra>"
        line = go.Scatter(
            x=rows.values, y=values[:, 0], mode="lines+markers", line={"color": _BLUE}, hovertemplate=form
        )
        return plain(go.Figure(line), 280).update_layout(title=title, xaxis_title=rows.name, margin_b=44)
    across, down = ([f"{value:g}" for value in axis.values] for axis in (columns, rows))
    form = f"{rows.name} = %{{y}}, {columns.name} = %{{x}}: %{{z:.3f}}<extra></extra>"
    heat = go.Heatmap(
        x=across, y=down, z=values, colorscale="Cividis", texttemplate="%{z:.3f}", hovertemplate=form, zsmooth=False
    )
    return plain(go.Figure(heat), 130 + 32 * len(down)).update_layout(
        title=title,
        xaxis={"title": columns.name, "type": "category"},
        yaxis={"title": rows.name, "type": "category", "autorange": "reversed"},
        margin_b=44,
    )


def agreement_bars(seen: Comparison, classes: Sequence[str], colors: np.ndarray) -> go.Figure:
    """The IoU between two masks for each class that is in either, and the mean in the title.

    Args:
        classes: names of the K-1 objects.
        colors: (K, 3) uint8.
    """
    kept = np.flatnonzero(~np.isnan(seen.iou))
    bars = go.Bar(
        x=seen.iou[kept],
        y=[plain_text(("background", *classes)[k]) for k in kept],
        orientation="h",
        marker={"color": [f"rgb{tuple(colors[k].tolist())}" for k in kept], "line": {"color": "#888888", "width": 1}},
        text=[f"{100 * value:.0f} %" for value in seen.iou[kept]],
        textposition="auto",
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    mean = "-" if np.isnan(seen.mean) else f"{100 * seen.mean:.1f} %"
    title = {"text": f"IoU between the two, mean {mean}", "font_size": 13, "x": 0.5}
    return plain(go.Figure(bars), 110 + 30 * len(kept)).update_layout(
        title=title, xaxis={"range": [0, 1], "title": None}, yaxis={"autorange": "reversed", "dtick": 1}
    )


def _small_titles(figure: go.Figure) -> go.Figure:
    return figure.update_annotations(font_size=13)
