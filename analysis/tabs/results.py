"""What was measured with `python -m analysis.reproduce`, beside the paper's numbers."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from analysis import runs, tables
from analysis.tabs.events import PRIVATE
from analysis.tabs.words import in_words

SHIPPED = Path(__file__).parent.parent / "results"


def build() -> None:
    """Lay out the tab, inside open gr.Tabs: the tables that are shipped, and those that were made on this machine."""
    folders = SHIPPED, runs.root() / "results"
    with gr.Tab("Results", id="Results") as tab:
        gr.Markdown(
            "Measured here: networks of this repository; the shipped tables are on `voc-animals`. "
            "Paper: by its authors on PASCAL VOC 2012 with WideResNet-38. Compare their order, not their values."
        )
        chosen = gr.Radio(list(_offered(folders)), label="Table")
        text = gr.Markdown(elem_classes="results")
        plot = gr.Plot(show_label=False)

    def shown(title: str | None) -> tuple:
        """The table, the first one where none is chosen; tables may have been written since the page was built."""
        offered = _offered(folders)
        if not offered:
            return gr.Radio(choices=[]), "There is no table yet: run `python -m analysis.reproduce 5`.", None
        is_offered = title in offered
        title = title if is_offered else next(iter(offered))
        folder, name = offered[title]
        table = tables.read(folder, name)
        choice = {} if is_offered else {"value": title}  # the visitor may have gone on meanwhile
        note = f"\n\n{tables.NOTES[name]}" if folder == folders[0] and name in tables.NOTES else ""
        return (
            gr.Radio(choices=list(offered), **choice),
            tables.markdown(name, table) + note,
            tables.figure(name, table),
        )

    gr.on(
        [tab.select, chosen.input], in_words(shown), chosen, [chosen, text, plot], trigger_mode="always_last", **PRIVATE
    )


def _offered(folders: Sequence[Path]) -> dict[str, tuple[Path, str]]:
    """The folder and the name of each table, by what the visitor reads."""
    return {
        tables.TITLES[name] + (" (made on this machine)" if folder != folders[0] else ""): (folder, name)
        for folder in folders
        for name in tables.written(folder)
    }
