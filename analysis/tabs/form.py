"""The settings of a training run as a form, made from the fields of `Config`."""

from dataclasses import Field, fields
from itertools import groupby
from typing import Any

import gradio as gr

from wsss import UserError
from wsss.config import Config
from wsss.presets import PRESETS

_OF_THE_MACHINE = {"cache", "workers", "device", "precision", "seed", "encoder_weights", "masks"}
"""What the paper does not set; the groups "records" and "test" are not its either."""

_OF_OTHERS = "the paper has none", "Araslanov and Roth", "focal mask penalty"
"""Words of a help by which it is not the paper's setting."""


def build(preset: str) -> list[gr.components.Component]:
    """Add one accordion a group to the open column. Returns a component for each field of `Config`, in order."""
    config, components = PRESETS[preset](), []
    for group, members in groupby(fields(Config), key=lambda field: field.metadata["group"]):
        with gr.Accordion(group.capitalize(), open=False), gr.Row():
            components += [_component(member, getattr(config, member.name)) for member in members]
    return components


def _component(field: Field, value: Any) -> gr.components.Component:
    common = {"value": value, "label": field.name, "info": info(field), "min_width": 200}
    if field.type is bool:
        return gr.Checkbox(**common)
    if field.metadata["choices"]:
        return gr.Dropdown(list(field.metadata["choices"]), **common)
    if field.type is str:
        return gr.Textbox(max_length=400, **common)
    return gr.Number(step="any" if field.type is float else 1, **common)


def info(field: Field) -> str:
    """One line on a setting, and its value in the paper."""
    group, default = field.metadata["group"], field.default
    of_others = any(words in field.metadata["help"] for words in _OF_OTHERS)
    is_the_papers = group not in ("records", "test") and field.name not in _OF_THE_MACHINE and not of_others
    words = str(default).lower() if isinstance(default, bool) else f"{default:g}" if field.type is float else default
    return f"{field.metadata['help']} · {'paper' if is_the_papers else 'default'}: {words if words != '' else 'empty'}"


def values_of(preset: str) -> list[Any]:
    """A preset's values, in the order of the form. Raises UserError for a name that is none."""
    if preset not in PRESETS:
        raise UserError(f"there is no preset {preset!r}; choose {', '.join(PRESETS)}")
    return filled(PRESETS[preset]())


def filled(config: Config) -> list[Any]:
    """A config's values, in the order of the form."""
    return [getattr(config, field.name) for field in fields(Config)]


def config_of(values: list[Any]) -> Config:
    """The config that a form asks for. Raises UserError as the command does, naming the setting."""
    known = {field.name: _typed(field, value) for field, value in zip(fields(Config), values, strict=True)}
    return Config(**known)


def _typed(field: Field, value: Any) -> Any:
    """A browser has one kind of number and gives None for an empty text."""
    if field.type is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if field.type is str and isinstance(value, str | None):
        return (value or "").strip()
    return value
