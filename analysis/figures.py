"""Plotly figures of scores, and the look that all figures share."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
_DARK = 60  # of luma: about that of a dark page's panel, and half as much again


def score_bars(scores: np.ndarray, classes: Sequence[str], colors: np.ndarray) -> go.Figure:
    """Horizontal bars of image-level probabilities.

    Args:
        scores: (K-1,) in [0, 1].
        colors: (K, 3) uint8, the background's first.
    """
    return _bars(scores, classes, colors[1:])


def pixel_bars(probs: np.ndarray, classes: Sequence[str], colors: np.ndarray, at: tuple[int, int]) -> go.Figure:
    """Horizontal bars of the class probabilities of the pixel at (row, column).

    Args:
        probs: (K,) in [0, 1], the background's first.
        colors: (K, 3) uint8.
    """
    figure = _bars(probs, ("background", *classes), colors)
    return figure.update_layout(title={"text": f"row {at[0]}, column {at[1]}", "font_size": 13, "x": 0.5})


def score_path(maps: np.ndarray, names: Sequence[str], colors: np.ndarray) -> go.Figure:
    """How the scores of one pixel change from step to step of the refinement (Eq. 6).

    Args:
        maps: (T+1, n), one column a class.
        names, colors: of the n classes; colors (n, 3) uint8.
    """
    figure = go.Figure()
    for scores, name, color in zip(maps.T, names, colors, strict=True):
        line = go.Scatter(y=scores, name=plain_text(name), mode="lines", line={"color": _of_line(color), "width": 3})
        figure.add_trace(line.update(hovertemplate=f"{plain_text(name)}, T = %{{x}}: %{{y:.3f}}<extra></extra>"))
    return plain(figure, 284).update_layout(
        xaxis={"title": "T, on the grid of the pseudo masks"},
        yaxis={"range": [0, 1.02]},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1.02, "yanchor": "bottom"},
        margin_b=44,
        margin_t=68,  # the names of the lines stand below the page's label
    )


def _of_line(color: np.ndarray) -> str:
    """A class's color, lighter where it is as dark as a page may be; gray for the background's black."""
    if not color.any():
        return "#888888"
    lighter = 64 if color @ _LUMA < _DARK else 0
    return f"rgb{tuple(min(255, int(value) + lighter) for value in color)}"


def _bars(values: np.ndarray, names: Sequence[str], colors: np.ndarray) -> go.Figure:
    figure = go.Figure(
        go.Bar(
            x=values,
            y=[plain_text(name) for name in names],
            orientation="h",
            marker={
                "color": [f"rgb{tuple(int(value) for value in color)}" for color in colors],
                "line": {"color": "#888888", "width": 1},  # VOC's dark colors show on a dark page too
            },
            text=[f"{100 * value:.0f} %" for value in values],
            textposition="auto",
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    return plain(figure, 94 + 26 * len(names)).update_layout(
        xaxis={"range": [0, 1], "title": None}, yaxis={"autorange": "reversed", "dtick": 1}
    )


def plain(figure: go.Figure, height: int) -> go.Figure:
    """The look of every figure: transparent, small margins, readable on a light and on a dark page."""
    grid = "rgba(128,128,128,0.25)"
    figure.update_xaxes(gridcolor=grid, zerolinecolor=grid).update_yaxes(gridcolor=grid, zerolinecolor=grid)
    return figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 44, "b": 30},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#888888", "family": "IBM Plex Sans, sans-serif"},
    )


def plain_text(text: str) -> str:
    """Plotly takes some HTML and templates in words; a name is only ever a name."""
    return str(text).replace("<", "‹").replace(">", "›").replace("%{", "% {")
