"""A visitor's own checkpoint."""

import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from analysis.library import MOST_UPLOADED, Library
from analysis.tabs.guard import MOST_FILE
from analysis.tabs.pictures import note
from analysis.tabs.subject import Subject, unlike_before
from analysis.tabs.words import in_words
from analysis.upload import admit
from wsss import UserError


def build(subject: Subject) -> None:
    """Add the input to the open column; what it takes is offered as a checkpoint, and chosen."""
    with gr.Accordion("A checkpoint of your own (optional)", open=False):
        files = gr.File(
            label="model.safetensors or a .pt file, and its config.json",
            file_count="multiple",
            file_types=[".safetensors", ".pt", ".pth", ".json"],
            height=120,
        )
        note(
            f"At most {MOST_FILE // 2**20} MiB a file. Everyone who uses this server can choose the checkpoint. "
            f"Only the newest {MOST_UPLOADED} are kept."
        )

    def receive(paths: Sequence[str] | None) -> tuple:
        name = take(subject.library, [Path(path) for path in paths or ()])
        return gr.Dropdown(subject.library.names, value=name), unlike_before()

    files.upload(
        in_words(receive),
        files,
        [subject.checkpoint, subject.given],
        api_visibility="private",
        concurrency_id="upload",
        concurrency_limit=1,
        trigger_mode="always_last",  # a config.json that comes while its weights are looked at
    )


def take(library: Library, paths: Sequence[Path]) -> str:
    """Add uploaded files to the library as a checkpoint; returns its name. Raises UserError when it is refused."""
    described = [path for path in paths if path.suffix.lower() == ".json"]
    weights = [path for path in paths if path not in described]
    if len(weights) != 1 or len(described) > 1:
        raise UserError("a checkpoint is one file of weights and, where there is one, its config.json")
    name = _free_name(re.sub(r"[^\w.-]+", "_", weights[0].stem)[:40].strip("._") or "uploaded", library.names)
    parent = Path(gr.utils.get_upload_folder(), f"checkpoint-{secrets.token_hex(8)}")
    like = library.folder(library.names[0])
    try:
        folder = admit(weights[0], parent / name, like=like, described=described[0] if described else None)
        library.add_upload(name, folder)
    except UserError:
        shutil.rmtree(parent, ignore_errors=True)  # also what a process that was killed has written beside
        raise
    return name


def _free_name(name: str, taken: Sequence[str]) -> str:
    number = 1
    while (free := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return free
