"""The classes that are said to be in the photograph."""

import gradio as gr


class Chips(gr.CheckboxGroup):
    """A choice of classes by name, of whatever checkpoint.

    When another checkpoint is chosen, questions are still under way that name the classes of the one before. Gradio
    would refuse them; who is asked leaves out what the checkpoint does not know.
    """

    is_template = True  # to the browser it is an ordinary group of checkboxes

    def preprocess(self, payload) -> list[str]:
        """The names that are ticked."""
        return [name for name in payload or [] if isinstance(name, str)]
