"""What a handler's outputs are when nothing is to be shown, and when a control was moved while they were made."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr


def emptied(outputs: Sequence[Any], controls: Sequence[Any]) -> list:
    """What a tab's outputs become while there is no photograph: nothing, but what the visitor sets keeps its value.

    One that was emptied would be refused with the next photograph.
    """
    kept = (*controls, *(output for output in outputs if isinstance(output, gr.components.FormComponent)))
    return [gr.skip() if output in kept else _nothing(output) for output in outputs]


def _nothing(output: Any) -> Any:
    """A button without a file would be pressed in vain."""
    return gr.update(value=None, interactive=False) if isinstance(output, gr.DownloadButton) else None


def noting(answer: Callable, outputs: int, controls: int) -> Callable:
    """The handler `answer`, with the values of its last inputs, the controls, as one more output."""

    def noted(*given):
        shown = answer(*given)
        return *(shown if outputs > 1 else [shown]), given[len(given) - controls :]

    return noted


def again_if_moved(answer: Callable, outputs: int, own: Sequence[int]) -> Callable:
    """A handler that answers anew where one of the visitor's `own` controls is no longer what was shown.

    A slider that is moved while the pictures of a new photograph are made has its answer first; theirs, made with the
    value before, would stay.
    """

    def again(shown, *given):
        now = given[-len(shown) :] if shown else ()  # nothing is known of a session that was forgotten meanwhile
        if now and any(shown[at] != now[at] for at in own):
            return answer(*given)
        return gr.skip() if outputs == 1 else [gr.skip()] * outputs

    return again
