"""The buttons that give an evaluation's report as a file: CSV, JSON, one HTML page."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from analysis import evaluations, report
from analysis.tabs.download import hidden_link
from analysis.tabs.events import UNDOCUMENTED
from analysis.tabs.words import in_words
from wsss import UserError

_MOST_PICTURED = 6  # worst photographs whose pictures the HTML page holds
_KINDS = {"csv": report.csv_text, "json": report.json_text}


def build(left: gr.Dropdown) -> None:
    """Add a button for each format of the chosen evaluation's report to the open row."""
    for kind in (*_KINDS, "html"):
        button = gr.Button(f"Download {kind.upper()}", size="sm", min_width=110)
        link, click = hidden_link(f"report-{kind}")
        settings = UNDOCUMENTED | {"api_name": f"evaluate_{kind}", "show_progress": "full"}
        made = button.click(in_words(_report_by(kind)), left, link, **settings)
        made.success(None, None, None, js=click, api_visibility="private")


def _report_by(kind: str) -> Callable:
    def written(left: str) -> str:
        found = evaluations.report_of(left)
        text = _KINDS[kind](found) if kind in _KINDS else report.html_text(found, left, _worst(left, found))
        path = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()), f"{left}.{kind}")
        path.write_text(text)
        return str(path)

    return written


def _worst(left: str, found: dict[str, Any]) -> Iterator[tuple[str, report.Pictures]]:
    """The pictures of the worst photographs, one by one, since they may be large; none where the data have gone."""
    for row in report.worst_first(found)[:_MOST_PICTURED]:
        try:
            seen = evaluations.pictures_of(left, row["name"])
        except UserError:
            return
        yield row["name"], seen
