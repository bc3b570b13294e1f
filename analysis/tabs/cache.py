"""Pictures on their way to a browser: written whole, or not at all."""

import functools
import os
import tempfile
from pathlib import Path

from gradio import processing_utils


def write_pictures_whole() -> None:
    """Make Gradio write a picture beside its place and move it there.

    It names a picture by its content, and writes it into its place again for each visitor who gets the same one: who
    fetches it at that moment, the example at the start for instance, would get half of it.
    """
    write = processing_utils.save_pil_to_cache
    if hasattr(write, "__wrapped__"):
        return

    @functools.wraps(write)
    def write_whole(img, cache_dir, *given, **named) -> str:
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir) as own:
            written = Path(write(img, own, *given, **named))
            place = Path(cache_dir).resolve() / written.parent.name / written.name
            place.parent.mkdir(exist_ok=True)
            os.replace(written, place)
        return str(place)

    processing_utils.save_pil_to_cache = write_whole
