"""What was measured with `python -m analysis.reproduce`, beside the paper's numbers."""

from pathlib import Path

import gradio as gr

from analysis import tables
from analysis.tabs.events import PRIVATE
from analysis.tabs.words import in_words

RESULTS = Path(__file__).parent.parent / "results"


def build(folder: Path = RESULTS) -> None:
    """Lay out the tab, inside open gr.Tabs."""
    names = tables.written(folder)
    with gr.Tab("Results", id="Results") as tab:
        gr.Markdown(
            "Measured here: on the photographs that the text names, by a network of this repository. Paper: by its "
            "authors on PASCAL VOC 2012 with WideResNet-38. The two do not compare in size, only in order."
        )
        chosen = gr.Radio(
            [(tables.TITLES[name], name) for name in names],
            value=names[0] if names else None,
            label="Table",
            visible=bool(names),
        )
        text = gr.Markdown(
            "" if names else "There is no table yet: run `python -m analysis.reproduce 5`.",
            elem_classes="results",
        )
        plot = gr.Plot(show_label=False, visible=bool(names))
    if names:

        def shown(name: str) -> tuple:
            table = tables.read(folder, name)
            return tables.markdown(name, table), tables.figure(name, table)

        gr.on([tab.select, chosen.input], in_words(shown), chosen, [text, plot], **PRIVATE)
