"""Plotly figures."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go


def score_bars(scores: np.ndarray, classes: Sequence[str], colors: np.ndarray) -> go.Figure:
    """Horizontal bars of image-level probabilities.

    Args:
        scores: (K-1,) in [0, 1].
        colors: (K, 3) uint8, the background's first.
    """
    figure = go.Figure(
        go.Bar(
            x=scores,
            y=list(classes),
            orientation="h",
            marker={
                "color": [f"rgb{tuple(int(value) for value in color)}" for color in colors[1:]],
                "line": {"color": "#888888", "width": 1},  # VOC's dark colors show on a dark page too
            },
            text=[f"{100 * score:.0f} %" for score in scores],
            textposition="auto",
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    figure.update_layout(
        height=94 + 26 * len(classes),
        margin={"l": 10, "r": 10, "t": 44, "b": 30},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font_color="#888888",  # readable on a light and on a dark page
        xaxis={"range": [0, 1], "title": None, "gridcolor": "rgba(128,128,128,0.25)"},
        yaxis={"autorange": "reversed"},
    )
    return figure
