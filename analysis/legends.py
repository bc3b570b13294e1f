"""Words and colors beside pictures, as HTML."""

import html
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.render import shares

_GRAY = (180, 180, 180)  # of unlabelled pixels


def line(*parts: str) -> str:
    """A line of HTML; what comes from a visitor or a file must be escaped already."""
    return f'<div class="legend">{" &middot; ".join(parts)}</div>'


def state_line(state: str, *parts: str) -> str:
    """The same, of something that is in a state, for whoever looks at the page's source for it."""
    return f'<div class="legend" data-state="{html.escape(state)}">{" &middot; ".join(parts)}</div>'


def swatches(colors: Mapping[str, Sequence[int]]) -> str:
    """A line of colors with their names, which are escaped."""
    entries = (
        f'<span class="entry"><i style="background:rgb({",".join(str(int(value)) for value in color)})"></i>'
        f"{html.escape(name)}</span>"
        for name, color in colors.items()
    )
    return f'<div class="legend">{"".join(entries)}</div>'


def legend(mask: np.ndarray, classes: Sequence[str], colors: np.ndarray) -> str:
    """The name, color and area share of each class in the mask."""
    paints = dict(zip(("background", *classes), colors, strict=True))
    seen = shares(mask, classes).items()
    return swatches({f"{name} {100 * share:.0f} %": paints.get(name, _GRAY) for name, share in seen})
