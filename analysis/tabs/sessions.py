"""What Gradio remembers of each visitor."""

import datetime
import functools
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.state_holder import SessionState, StateHolder


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


def keep_while_used() -> None:
    """Make Gradio forget what it keeps of a visitor an hour after the last question, not after the last change.

    To Gradio a phone that was locked for a moment has left for good, since it never asks for the heartbeat again. It
    would lose its photograph an hour after that was given, in the midst of its use.
    """
    find = StateHolder.__getitem__
    if hasattr(find, "__wrapped__"):
        return

    @functools.wraps(find)
    def find_used(holder: StateHolder, session: str) -> SessionState:
        state, now = find(holder, session), datetime.datetime.now()
        state._state_ttl = {key: (lifetime, now) for key, (lifetime, _) in list(state._state_ttl.items())}
        return state

    StateHolder.__getitem__ = find_used


def has_changed(state: gr.State, given: Any) -> bool:
    """Whether the visitor who is being answered has another value in a state by now than the one that came along."""
    page, request = LocalContext.blocks.get(None), LocalContext.request.get(None)
    session = getattr(request, "session_hash", None)
    return page is not None and session is not None and page.state_holder[session][state._id] is not given
