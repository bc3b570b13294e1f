"""Gradio's folder of files: pictures are written whole, or not at all, and old files go as long as the page lives."""

import functools
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from gradio import processing_utils, route_utils


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


def go_on_removing() -> None:
    """Make Gradio's removal of old files outlive a file that comes while it looks at the others.

    It goes through sets that visitors' uploads are added to, and Python refuses to go on with a set that has changed:
    the task would end, and no file be removed until the server does. Now what is left waits for the next time.
    """
    remove = route_utils.delete_files_created_by_app
    if hasattr(remove, "__wrapped__"):
        return

    @functools.wraps(remove)
    def remove_what_can_be(*given, **named) -> None:
        with suppress(RuntimeError):
            remove(*given, **named)

    route_utils.delete_files_created_by_app = remove_what_can_be
