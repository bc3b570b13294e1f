"""The button that gives a visitor what a tab shows: palette PNG, raw arrays, settings."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr

from analysis.exports import archive, settings_json
from analysis.tabs.scene import Scene
from analysis.tabs.subject import QUIET, Subject


def build(
    subject: Subject, name: str, files: Callable, controls: Sequence[gr.components.Component], names: Sequence[str]
) -> None:
    """Add the button to the open column.

    Args:
        name: of the zip file, without its ending.
        files: files(scene, *controls) gives the files' contents by name; settings.json is added.
        names: of the controls, in settings.json.
    """
    button = gr.Button("Download: PNG, arrays, settings", size="sm", min_width=150)
    link, click = hidden_link(name)

    def zipped(scene: Scene, *values) -> str:
        given = dict(zip(names, values, strict=True))
        settings = settings_json(scene.predictor, scene.encoding, scene.present, pixel=list(scene.pixel), **given)
        path = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()), f"{name}.zip")
        path.write_bytes(archive({**files(scene, *values), "settings.json": settings}))
        return str(path)

    # After a mistake the link has no file, or the one that was made before would be had again.
    answer = subject.answer(zipped, 1, mistaken=[None], asks=True)
    made = button.click(answer, subject.inputs(controls), link, **QUIET)
    made.success(None, None, None, js=click, api_visibility="private")


def hidden_link(name: str) -> tuple[gr.DownloadButton, str]:
    """A link to a file that a button makes, and the JavaScript that clicks it once the file is there.

    A link must exist before it is clicked, its file only after: so a button makes the file, and then clicks the link.
    """
    link = gr.DownloadButton(elem_id=f"download-{name}", elem_classes="hidden-link")
    return link, f"() => document.querySelector('#download-{name}').click()"
