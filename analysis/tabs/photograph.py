"""The picture that a visitor gives."""

from pathlib import Path

import gradio as gr
import numpy as np

from analysis.tabs.words import sentence
from wsss import UserError
from wsss.data.picture import read_rgb


class Photograph(gr.Image):
    """An image input whose files are decoded by `read_rgb`, never by Gradio.

    Gradio opens a file before any handler sees it, without a limit on its pixels, and takes palette indices, 16-bit
    gray or hidden colors for what they are not. A refusal is one sentence on the page.
    """

    is_template = True  # to the browser it is an ordinary image input

    def preprocess(self, payload) -> np.ndarray | None:
        """(H, W, 3) uint8; None when the input was cleared. Raises gr.Error in words."""
        return None if payload is None else decoded(payload.path)


class PhotographFile(gr.Image):
    """The same for a handler that decodes the file itself, or need not because it has not changed."""

    is_template = True

    def preprocess(self, payload) -> str | None:
        """The path of the file, for `decoded`; None when the input was cleared."""
        return None if payload is None else payload.path or ""


def decoded(path: str | None) -> np.ndarray:
    """An uploaded file as (H, W, 3) uint8. Raises gr.Error in words."""
    if not path or path.startswith("data:"):
        raise gr.Error("This image cannot be used: it must be uploaded as a file.")
    file = Path(path)
    if file.is_symlink():
        raise gr.Error("This image cannot be used: it is not a regular file.")
    if not file.exists():  # uploads are deleted after a while
        raise gr.Error("This image cannot be used: it is no longer on the server; upload it again.")
    try:
        return read_rgb(file)
    except UserError as error:
        # The visitor does not know the server's path of the file.
        reason = str(error).removeprefix(f"{file}: ").replace(str(file), "the file")
        raise gr.Error(sentence(f"this image cannot be used: it {reason}")) from None
