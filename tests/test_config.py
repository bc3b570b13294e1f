"""Settings: a wrong one is refused in one sentence, a right one survives every way it travels."""

import argparse
import json
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


def test_the_papers_numbers_are_the_defaults():
    config = Config()
    assert (config.alpha, config.refine_steps, config.info_radius, config.info_samples) == (0.8, 10, 7, 9)
    assert (config.info_bandwidth, config.drop_temperature, config.object_cutoff) == (1.0, 0.5, 0.6)
    assert (config.epochs, config.crop, config.lr, config.encoder_lr) == (20, 448, 1e-2, 1e-3)
    assert (config.momentum, config.weight_decay, config.poly_power, config.output_stride) == (0.9, 1e-4, 0.9, 16)


def test_every_setting_has_a_help_text_and_every_number_a_range():
    for field in fields(Config):
        assert field.metadata["help"]
        if field.type in (int, float) and field.name != "output_stride":
            with pytest.raises(UserError, match=field.name):
                from_dict({field.name: field.type(-1e6)})


def test_flags_change_a_preset():
    config = parse("--preset", "tiny", "--lr", "0.5", "--region-loss", "false")
    assert (config.dataset, config.lr, config.region_loss) == ("shapes", 0.5, False)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learning_rat": 1}, "no setting 'learning_rat'"),
        ({"alfa": 0.5}, "did you mean 'alpha'"),
        ({"alpha": 1.5}, "alpha must lie between 0 and 1"),
        ({"alpha": float("nan")}, "alpha must be a finite float"),
        ({"lr": "1e-3"}, "lr must be a finite float"),
        ({"epochs": 1.5}, "epochs must be a finite int"),
        ({"epochs": True}, "epochs must be a finite int"),
        ({"cache": 1}, "cache must be a finite bool"),
        ({"shape_cue": "off"}, "shape_cue must be one of on, identity, none"),
        ({"output_stride": 32}, "output_stride must be 8 or 16"),
        ({"info_patch": 2}, "info_patch must be odd"),
        ({"teacher": "average"}, "teacher average needs an average: give ema_decay"),
    ],
)
def test_a_wrong_value_is_refused_in_words(values, words):
    with pytest.raises(UserError, match=words):
        from_dict(values)
