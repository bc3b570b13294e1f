"""Parts of the page that are drawn again only where what they depend on has changed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr


def chosen_of(names: Sequence[str], chosen: str | None, asked: str | None) -> gr.Dropdown:
    """A list with new names. What was `asked` with stays, as the visitor may have chosen another one since."""
    return gr.Dropdown(choices=names) if chosen == asked else gr.Dropdown(choices=names, value=chosen)


def if_changed(seen: Mapping[str, Any], now: Mapping[str, Any]) -> Callable[[str, Callable[[], Any]], Any]:
    """Of what each part depended on when it was drawn, and does now: a function that draws a part, or skips it."""

    def drawn(part: str, draw: Callable[[], Any]) -> Any:
        return draw() if seen.get(part) != now[part] else gr.skip()

    return drawn
