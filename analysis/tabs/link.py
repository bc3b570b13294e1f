"""A link that brings the settings back, and the switch to a dark page."""

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from analysis.library import Library
from analysis.tabs.events import PRIVATE
from analysis.tabs.subject import QUIET
from analysis.tabs.words import sentence

_COPY = """(...values) => {
  const names = %s;
  const url = new URL(window.location.href);
  const tab = document.querySelector('[role="tab"][aria-selected="true"]');
  if (tab) url.searchParams.set("tab", tab.textContent.trim());
  names.forEach((name, i) => url.searchParams.set(name, values[i]));
  navigator.clipboard?.writeText(url.href);
  window.history.replaceState(null, "", url);
}"""

# In the browser, as the server would have to send back every setting of the page.
_RESTORE = """(...values) => {
  const given = new URL(window.location.href).searchParams;
  return %s.map(({name, least, most, choices, several, longest}, i) => {
    const text = given.get(name);
    if (text === null || (choices && !choices.includes(text))) return values[i];
    if (choices) return typeof values[i] === "boolean" ? text === "true" : text;
    if (several) return several.filter(choice => text.split(",").includes(String(choice)));
    if (longest) return text.slice(0, longest);
    return text !== "" && Number(text) >= least && Number(text) <= most ? Number(text) : values[i];
  });
}"""

_MOST = 2**53  # the greatest whole number that a browser tells from the next
_COPIED = (
    "The link is in the address bar, and on the clipboard where the browser allows that. "
    "The photograph and its ticked classes do not travel with it."
)

# A browser may refuse to keep anything.
_DARK = """() => {
  const dark = document.body.classList.toggle("dark");
  try { localStorage.setItem("dark", dark); } catch {}
}"""
_AS_BEFORE = """() => {
  try {
    const dark = localStorage.getItem("dark");
    if (dark !== null) document.body.classList.toggle("dark", dark === "true");
  } catch {}
}"""


def build(page: gr.Blocks, settings: dict[str, gr.components.Component], library: Library, tabs: gr.Tabs) -> None:
    """Add the two buttons to the open column; a page opened by such a link starts with its settings and its tab.

    Args:
        settings: what the link holds, by the names that it has there.
        library: what those of them choose from whose name ends on "checkpoint".
        tabs: of which one is open; each has its label as its id.
    """
    copy, dark = gr.Button("Copy a link to these settings", size="sm"), gr.Button("Dark or light", size="sm")
    names, controls = list(settings), list(settings.values())
    copied = copy.click(None, controls, None, js=_COPY % names, api_visibility="private")
    copied.then(lambda: gr.Info(_COPIED), api_visibility="private")
    dark.click(None, js=_DARK, api_visibility="private")
    page.load(None, js=_AS_BEFORE, api_visibility="private")

    named = [name for name in names if name.endswith("checkpoint")]
    chosen = page.load(_checkpoints_by(library, named), None, [settings[name] for name in named], **PRIVATE)
    others = {name: control for name, control in settings.items() if name not in named}
    taken = json.dumps([{"name": name, **_taken(control)} for name, control in others.items()])
    page.load(None, list(others.values()), list(others.values()), js=_RESTORE % taken, api_visibility="private")
    # Last: it shows what there is, and waits with the network's questions for the photograph.
    chosen.then(_opened_by(tabs), None, tabs, **QUIET)


def _checkpoints_by(library: Library, named: list[str]) -> Callable:
    def checkpoints(request: gr.Request) -> list[gr.Dropdown]:
        """What is offered now, and which of it the link asks for; the first, where it asks for none."""
        offered, asked = library.names, [request.query_params.get(name) for name in named]
        if missing := [name for name in asked if name and name not in offered]:
            gr.Warning(sentence(f"the checkpoint {missing[0]!r} of the link is not here"))
        chosen = [name if name in offered else offered[0] for name in asked]
        return [gr.Dropdown(choices=offered, value=name) for name in chosen]

    return checkpoints


def _opened_by(tabs: gr.Tabs) -> Callable:
    ids = [tab.id for tab in tabs.children if isinstance(tab, gr.Tab)]

    def opened(request: gr.Request) -> gr.Tabs:
        """The tab that the link asks for; where there is none of that name, the page stays as it is."""
        asked = request.query_params.get("tab")
        return gr.Tabs(selected=asked) if asked in ids else gr.skip()

    return opened


def _taken(control: gr.components.Component) -> dict[str, Any]:
    """What a control takes from a link: a number between two, one or several of some choices, or a text.

    Anything else changes nothing.
    """
    if control.interactive is False:
        return {"choices": []}
    if isinstance(control, gr.Slider):
        return {"least": control.minimum, "most": control.maximum}
    if isinstance(control, gr.Number):
        return {"least": control.minimum, "most": control.maximum or _MOST}
    if isinstance(control, gr.CheckboxGroup):
        return {"several": [value for _, value in control.choices]}
    if isinstance(control, gr.Textbox):
        return {"longest": control.max_length}
    is_flag = isinstance(control, gr.Checkbox)
    return {"choices": ["true", "false"] if is_flag else [value for _, value in control.choices]}
