"""Choices of classes, of whatever checkpoint.

When another photograph or checkpoint is chosen, questions are still under way that name the classes of the one before.
Gradio would refuse them; who is asked leaves out, or does without, what is not there any more.
"""

import gradio as gr


class Chips(gr.CheckboxGroup):
    """The classes that are said to be in the photograph, by name."""

    is_template = True  # to the browser it is an ordinary group of checkboxes

    def preprocess(self, payload) -> list[str]:
        """The names that are ticked."""
        return [name for name in payload or [] if isinstance(name, str)]


class OneClass(gr.Dropdown):
    """One class, by name."""

    is_template = True

    def preprocess(self, payload) -> str | None:
        """The name."""
        return payload if isinstance(payload, str) else None
