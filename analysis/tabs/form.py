"""The settings of a training run as a form, made from the fields of `Config`."""

from dataclasses import Field, fields
from itertools import groupby
from typing import Any

import gradio as gr

from wsss import UserError
from wsss.config import Config
from wsss.flags import default_text
from wsss.presets import PRESETS

STATED = frozenset(
    {
        *("dataset", "train_split", "val_split"),  # Sec. 4.1.1
        *("crop", "least_scale", "color_jitter"),  # Sec. 4.1.3: three augmentations, color is not among them
        *("encoder", "output_stride", "background_score"),  # Sec. 4.1.2, 3.1.1
        *("shape_cue", "info_radius", "info_samples", "info_bandwidth", "drop_temperature"),  # Sec. 3.1.2, 4.1.3
        *("alpha", "alpha_start", "refine_steps", "refine_source"),  # Sec. 4.1.3: one alpha; Eq. 5: s is the score
        *("object_cutoff", "object_cutoff_start", "least_cutoff"),  # Sec. 4.1.3
        *("background_cutoff", "background_cutoff_start"),  # Sec. 4.1.3: "for all classes"
        *("supervision", "pixel_loss", "pixel_weight", "region_loss", "region_weight"),  # Eq. 7 to 10
        *("region_radius", "region_margin"),  # Sec. 4.1.3
        *("epochs", "lr", "encoder_lr", "momentum", "weight_decay", "poly_power"),  # Sec. 4.1.2
        "test_refine_steps",  # Sec. 3.3: the refinement is not performed at test
    }
)
"""Fields of `Config` whose default the paper gives, in a number, an equation or words; the others are our choices."""


def build(preset: str) -> list[gr.components.Component]:
    """Add one accordion a group to the open column. Returns a component for each field of `Config`, in order."""
    config, components = PRESETS[preset](), []
    for group, members in groupby(fields(Config), key=lambda field: field.metadata["group"]):
        with gr.Accordion(group.capitalize(), open=False), gr.Row():
            for member in members:
                with gr.Column(min_width=200):  # a checkbox has no least width of its own
                    components.append(_component(member, getattr(config, member.name)))
    return components


def _component(field: Field, value: Any) -> gr.components.Component:
    common = {"value": value, "label": field.name, "info": info(field)}
    if field.type is bool:
        return gr.Checkbox(**common)
    if field.metadata["choices"]:
        return gr.Dropdown(list(field.metadata["choices"]), **common)
    if field.type is str:
        return gr.Textbox(max_length=400, **common)
    return gr.Number(step="any" if field.type is float else 1, **common)


def info(field: Field) -> str:
    """One line on a setting, and its value in the paper; where the paper is silent, our own by default."""
    source = "paper" if field.name in STATED else "default"
    return f"{field.metadata['help']} · {source}: {default_text(field)}"


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
