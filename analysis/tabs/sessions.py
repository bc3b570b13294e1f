"""What Gradio remembers of each visitor."""

import functools
from types import SimpleNamespace

from gradio.state_holder import SessionState


def keep_no_description() -> None:
    """Make Gradio keep a visitor's state without a description of the page as that visitor sees it.

    For deep links, which this page does not use, it describes all components when a visitor comes (1 MB each), and
    again those of each answer, pictures and all.
    """
    begin = SessionState.__init__
    if hasattr(begin, "__wrapped__"):
        return

    @functools.wraps(begin)
    def begin_lean(state: SessionState, page) -> None:
        begin(state, SimpleNamespace(default_config=page.default_config, blocks=()))
        state.blocks_config.config_for_block = lambda *_: {}

    SessionState.__init__ = begin_lean
