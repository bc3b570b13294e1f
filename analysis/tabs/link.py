"""A link that brings the settings back, and the switch to a dark page."""

import json
from typing import Any

import gradio as gr

_COPY = """(...values) => {
  const names = %s;
  const url = new URL(window.location.href);
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

_COPIED = "The link is in the address bar, and on the clipboard where the browser allows that."

_DARK = "() => { document.body.classList.toggle('dark'); }"


def build(page: gr.Blocks, settings: dict[str, gr.components.Component]) -> None:
    """Add the two buttons to the open row; a page that is opened by such a link starts with its settings.

    Args:
        settings: what the link holds, by the names that it has there.
    """
    copy, dark = gr.Button("Copy a link to these settings", size="sm"), gr.Button("Dark or light", size="sm")
    names, controls = list(settings), list(settings.values())
    copied = copy.click(None, controls, None, js=_COPY % names, api_visibility="private")
    copied.then(lambda: gr.Info(_COPIED), api_visibility="private")
    dark.click(None, js=_DARK, api_visibility="private")

    taken = json.dumps([{"name": name, **_taken(control)} for name, control in settings.items()])
    page.load(None, controls, controls, js=_RESTORE % taken, api_visibility="private")


def _taken(control: gr.components.Component) -> dict[str, Any]:
    """What a control takes from a link: a number between two, one or several of some choices, or a text.

    Anything else changes nothing.
    """
    if isinstance(control, gr.Slider):
        return {"least": control.minimum, "most": control.maximum}
    if isinstance(control, gr.CheckboxGroup):
        return {"several": [value for _, value in control.choices]}
    if isinstance(control, gr.Textbox):
        return {"longest": control.max_length}
    is_flag = isinstance(control, gr.Checkbox)
    return {"choices": ["true", "false"] if is_flag else [value for _, value in control.choices]}
