"""The choice of a dense CRF, which not every server has."""

import gradio as gr

from wsss.crf import available


def crf_box(**layout) -> gr.Checkbox:
    """Unticked, and fixed where pydensecrf2 is not installed."""
    is_available = available()
    info = "a dense CRF in place of the refinement" if is_available else "needs `pip install pydensecrf2`"
    return gr.Checkbox(False, label="CRF", info=info, interactive=is_available, **layout)
