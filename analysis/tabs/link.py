"""A link that brings the settings back, and the switch to a dark page."""

from typing import Any

import gradio as gr

_COPY = """(...values) => {
  const names = %s;
  const url = new URL(window.location.href);
  names.forEach((name, i) => url.searchParams.set(name, values[i]));
  navigator.clipboard?.writeText(url.href);
  window.history.replaceState(null, "", url);
}"""

_DARK = "() => { document.body.classList.toggle('dark'); }"


def build(page: gr.Blocks, settings: dict[str, gr.components.Component]) -> None:
    """Add the two buttons to the open row; a page that is opened by such a link starts with its settings.

    Args:
        settings: what the link holds, by the names that it has there.
    """
    copy, dark = gr.Button("Copy a link to these settings", size="sm"), gr.Button("Dark or light", size="sm")
    names, controls = list(settings), list(settings.values())
    copy.click(None, controls, None, js=_COPY % names, api_visibility="private").then(
        lambda: gr.Info("The link is in the address bar and on the clipboard."), api_visibility="private"
    )
    dark.click(None, js=_DARK, api_visibility="private")

    def restore(request: gr.Request) -> list[Any]:
        given = dict(request.query_params)
        return [_restored(control, given.get(name)) for name, control in settings.items()]

    page.load(restore, None, controls, api_visibility="private", show_progress="hidden")


def _restored(control: gr.components.Component, text: str | None) -> Any:
    """The value that a link gives a control; what the control would not take leaves it as it is."""
    if text is None:
        return gr.skip()
    if isinstance(control, gr.Slider):
        try:
            value = float(text)
        except ValueError:
            return gr.skip()
        return value if control.minimum <= value <= control.maximum else gr.skip()
    if isinstance(control, gr.Checkbox):
        return text == "true" if text in ("true", "false") else gr.skip()
    return text if text in [value for _, value in control.choices] else gr.skip()
