"""Settings: a wrong one is refused in one sentence, a right one survives every way it travels."""

import argparse
import json
import re
from dataclasses import asdict, fields

import pytest

from wsss import UserError
from wsss.config import Config, from_dict
from wsss.flags import add_flags, from_flags
from wsss.presets import PRESETS


def parse(*flags: str) -> Config:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return from_flags(parser.parse_args(flags))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_survives_json(preset):
    assert from_dict(json.loads(json.dumps(asdict(preset())))) == preset()


PAPER = {
    "crop": 448,
    "least_scale": 0.9,
    "output_stride": 16,
    "background_score": 1.0,
    "info_radius": 7,
    "info_samples": 9,
    "info_bandwidth": 1.0,
    "drop_temperature": 0.5,
    "alpha": 0.8,
    "alpha_start": 0.8,
    "refine_steps": 10,
    "refine_source": "score",
    "background_affinity": False,
    "teacher": "network",
    "object_cutoff": 0.6,
    "object_cutoff_start": 0.6,
    "background_cutoff": 0.6,
    "background_cutoff_start": 0.6,
    "least_cutoff": 0.2,
    "pixel_loss": True,
    "pixel_weight": 1.0,
    "balance_classes": True,
    "region_loss": True,
    "region_radius": 3,
    "region_margin": 3.0,
    "region_weight": 1.0,
    "warmup_epochs": 5,
    "epochs": 20,
    "batch": 16,
    "lr": 1e-2,
    "encoder_lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "poly_power": 0.9,
    "test_refine_steps": 0,
}
"""The paper's numbers and, where it is silent, those of its parents' codes that the method rests on."""


def test_the_papers_numbers_are_the_defaults():
    defaults = asdict(Config())
    assert {name: defaults[name] for name in PAPER} == PAPER


def test_each_setting_that_names_its_place_in_the_paper_is_among_the_papers_numbers():
    named = {
        field.name
        for field in fields(Config)
        if re.search(r"Sec\.|Eq\.|^value when the mask loss starts", field.metadata["help"])
    }
    silent = {"teacher", "batch", "warmup_epochs"}  # of the method, without a section to name
    assert PAPER.keys() == named | silent


def test_the_preset_animals_moves_its_cutoffs_to_where_its_best_run_had_them():
    preset = PRESETS["animals"]()
    assert (preset.object_cutoff_start, preset.object_cutoff) == (0.6, 0.52)
    assert (preset.background_cutoff_start, preset.background_cutoff) == (0.65, 0.65)
    assert preset.background_affinity is True and preset.image_pooling is False


def test_every_setting_has_a_help_text_and_every_number_a_range():
    for field in fields(Config):
        assert field.metadata["help"]
        if field.type in (int, float) and field.name != "output_stride":
            with pytest.raises(UserError, match=field.name):
                from_dict({field.name: field.type(-1e6)})


def test_flags_change_a_preset():
    config = parse("--preset", "tiny", "--lr", "0.5", "--region-loss", "false")
    assert (config.dataset, config.lr, config.region_loss) == ("shapes", 0.5, False)


def test_what_a_preset_holds_constant_stays_constant():
    assert [parse("--alpha", "0.5").alpha_start, parse("--object-cutoff", "0.5").object_cutoff_start] == [0.5, 0.5]
    assert parse("--alpha", "0.5", "--alpha-start", "1").alpha_start == 1
    falling = parse("--preset", "animals", "--alpha", "0.5")
    assert falling.alpha_start == PRESETS["animals"]().alpha_start


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learning_rat": 1}, "no setting 'learning_rat'"),
        ({"alfa": 0.5}, "did you mean 'alpha'"),
        ({"alpha": 1.5}, "alpha must lie between 0 and 1"),
        ({"seed": 2**31}, "seed must lie between 0 and 2147483647, got 2147483648"),
        ({"alpha": float("nan")}, "alpha must be a finite number"),
        ({"lr": "1e-3"}, "lr must be a finite number"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"cache": 1}, "cache must be true or false"),
        ({"shape_cue": "off"}, "shape_cue must be one of on, identity, none"),
        ({"output_stride": 32}, "output_stride must be 8 or 16"),
        ({"info_patch": 2}, "info_patch must be odd"),
        ({"teacher": "average"}, "teacher average needs an average: give ema_decay"),
    ],
)
def test_a_wrong_value_is_refused_in_words(values, words):
    with pytest.raises(UserError, match=words):
        from_dict(values)
