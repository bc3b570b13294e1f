"""Every number that a run may change, once, with its source.

Those that no run changes stand where they are used: the dilations, deviation and bandwidth of Eq. 5, the epsilon of
Eq. 1, the rates of the pyramid, the tolerance of boundary IoU.

Command-line flags and the page's form are made from the fields. The equations never see a `Config`: `objective` and
`pseudo_labels` hand them its numbers.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from wsss import UserError
from wsss.words import nearest, shown


def _option(default: bool | int | str, group: str, text: str, choices: Sequence[str] = ()):
    return field(default=default, metadata={"group": group, "help": text, "choices": tuple(choices)})


def _number(default: float, between: tuple[float, float], group: str, text: str):
    """One that lies between these two, both of them allowed."""
    return field(default=default, metadata={"group": group, "help": text, "choices": (), "between": between})


@dataclass(frozen=True)
class Config:
    """The setting of one run. The defaults are the paper's; where it is silent, those of its parents' codes, mostly.

    Raises:
        UserError: a value is of the wrong type, not finite, out of its range, or not among its choices.
    """

    # Data
    dataset: str = _option("voc", "data", "layout of the data folder", ("voc", "folder", "coco", "shapes"))
    train_split: str = _option("train_aug", "data", "list to train on")
    val_split: str = _option("val", "data", "list to evaluate on; none: no evaluation, no masks needed")
    short_side: int = _number(
        0, (0, 4096), "data", "photographs with a longer short side are reduced to it; 0 keeps them"
    )
    crop: int = _number(448, (32, 2048), "data", "side of the training crop in pixels (Sec. 4.1.3)")
    least_scale: float = _number(
        0.9, (0.01, 1), "data", "random scaling takes this share of the area at least (ratio: Sec. 4.1.3)"
    )
    color_jitter: float = _number(0.0, (0, 1), "data", "strength of the color jitter; the paper has none")
    cache: bool = _option(False, "data", "keep decoded photographs in memory; needs workers 0, each would hold a copy")
    workers: int = _number(4, (0, 64), "data", "processes that load data; 0 loads in the main process")
    masks: str = _option("", "data", "folder of masks NAME.png to train on, as pseudo_labels writes; empty: the data's")

    # Network
    encoder: str = _option("wrn38", "network", "wrn38, or the name of a timm model")
    encoder_weights: str = _option("", "network", "file of ImageNet weights; empty: the encoder's own; none: random")
    output_stride: int = _option(16, "network", "stride of the deepest features (Sec. 4.1.2)")
    frozen_stages: int = _number(2, (0, 8), "network", "shallow encoder stages that are not trained")
    shape_stage: int = _number(
        2, (0, 8), "network", "encoder stage that the shape cue reads; the decoder has its resolution"
    )
    aspp_channels: int = _number(256, (1, 4096), "network", "channels of each branch of the atrous pyramid")
    image_pooling: bool = _option(True, "network", "the atrous pyramid sees the mean of the image too, as DeepLabV3")
    decoder_channels: int = _number(256, (1, 4096), "network", "channels of the decoder")
    background_score: float = _number(1.0, (-100, 100), "network", "constant score of the background (Sec. 3.1.1)")

    # Shape cue module
    shape_cue: str = _option(
        "on", "shape cue", "on; identity drops nothing; none: no low-level features at all", ("on", "identity", "none")
    )
    shape_channels: int = _number(48, (1, 4096), "shape cue", "channels handed to the decoder")
    info_radius: int = _number(
        7, (1, 64), "shape cue", "R1, Manhattan radius of the neighbourhood in pixels (Sec. 4.1.3)"
    )
    info_samples: int = _number(9, (0, 10_000), "shape cue", "neighbours sampled for Eq. 3; 0 takes all of them")
    info_patch: int = _number(3, (1, 31), "shape cue", "side of a patch in pixels")
    info_bandwidth: float = _number(1.0, (1e-3, 1e3), "shape cue", "h of Eq. 3, where colors lie in [0, 1]")
    info_relative: bool = _option(False, "shape cue", "measure distances in units of the image's mean distance")
    drop_temperature: float = _number(0.5, (1e-3, 1e3), "shape cue", "tau of Eq. 4")
    drop_rate: float = _number(
        0.5,
        (0, 100),
        "shape cue",
        "strength of the drop: on average e^-rate of the features survive, or more (InfoDrop: 0.1, 1.5)",
    )

    # Pseudo masks
    alpha: float = _number(0.8, (0, 1), "pseudo masks", "Eq. 5: weight of color against class affinity, at the end")
    alpha_start: float = _number(
        0.8, (0, 1), "pseudo masks", "value when the mask loss starts; moves linearly to alpha"
    )
    refine_steps: int = _number(10, (0, 100), "pseudo masks", "T, refinement steps (Sec. 3.2.1)")
    refine_stride: int = _number(
        4, (1, 32), "pseudo masks", "the refinement and the mask losses see one row and one column in this many"
    )
    refine_source: str = _option("score", "pseudo masks", "what s of Eq. 5 is", ("score", "prob"))
    background_affinity: bool = _option(
        False, "pseudo masks", "s of the background in Eq. 5 is the highest of the objects'; false: its constant (0/0)"
    )
    teacher: str = _option(
        "network",
        "pseudo masks",
        "whose output makes the pseudo masks: the network's, or its average's",
        ("network", "average"),
    )
    object_cutoff: float = _number(
        0.6, (0, 1), "pseudo masks", "an object claims scores over this share of its maximum (Sec. 4.1.3)"
    )
    object_cutoff_start: float = _number(
        0.6, (0, 1), "pseudo masks", "value when the mask loss starts; moves linearly to object_cutoff"
    )
    background_cutoff: float = _number(
        0.6, (0, 1), "pseudo masks", "the background claims scores over this share of its maximum (Sec. 4.1.3)"
    )
    background_cutoff_start: float = _number(
        0.6, (0, 1), "pseudo masks", "value when the mask loss starts; moves linearly to background_cutoff"
    )
    least_cutoff: float = _number(0.2, (0, 1), "pseudo masks", "least score that claims a pixel (Sec. 4.1.3)")

    # Losses
    supervision: str = _option("labels", "losses", "labels of images, or masks (the upper bound)", ("labels", "masks"))
    focal_power: float = _number(
        0.0, (0, 10), "losses", "p of the focal mask penalty of Araslanov and Roth; 0 leaves it out"
    )
    focal_floor: float = _number(0.01, (1e-6, 1), "losses", "lambda of the focal mask penalty")
    focal_warmup_only: bool = _option(False, "losses", "the penalty has no gradient after the warm-up")
    pixel_loss: bool = _option(True, "losses", "Eq. 7")
    pixel_weight: float = _number(1.0, (0, 100), "losses", "weight of Eq. 7; the paper has none")
    balance_classes: bool = _option(
        True,
        "losses",
        "Eq. 7 weighs small classes of an image more, as Araslanov and Roth; not under masks that supervise",
    )
    region_loss: bool = _option(True, "losses", "Eq. 8")
    region_radius: int = _number(3, (1, 16), "losses", "R3 of Eq. 8 in pixels of the refined grid")
    region_margin: float = _number(3.0, (0, 100), "losses", "gamma of Eq. 8 in nats")
    region_weight: float = _number(
        1.0, (0, 100), "losses", "lambda of Eq. 9 at the end of training; it rises linearly from 0"
    )
    warmup_epochs: int = _number(
        5, (0, 10_000), "losses", "epochs of classification before the mask loss; the paper names none"
    )

    # Optimisation
    epochs: int = _number(20, (1, 10_000), "optimisation", "passes over the training list (Sec. 4.1.2)")
    batch: int = _number(16, (1, 4096), "optimisation", "photographs in a step, over all processes")
    lr: float = _number(
        1e-2, (1e-9, 100), "optimisation", "learning rate of the new layers (Sec. 4.1.2); of biases twice as much"
    )
    encoder_lr: float = _number(1e-3, (0, 100), "optimisation", "learning rate of the encoder (Sec. 4.1.2)")
    momentum: float = _number(0.9, (0, 0.9999), "optimisation", "momentum of SGD (Sec. 4.1.2)")
    weight_decay: float = _number(1e-4, (0, 10), "optimisation", "weight decay (Sec. 4.1.2); biases have none")
    poly_power: float = _number(
        0.9, (0, 10), "optimisation", "the learning rate falls as (1 - step/steps)^power (Sec. 4.1.2)"
    )
    ema_decay: float = _number(
        0.0,
        (0, 0.99999),
        "optimisation",
        "decay of the moving average of the weights, which is what is saved; 0: no average",
    )
    seed: int = _number(0, (0, 2**31 - 1), "optimisation", "every random number follows from it")
    device: str = _option("auto", "optimisation", "auto, cpu, cuda, cuda:1 ...")
    precision: str = _option("auto", "optimisation", "autocast", ("auto", "float32", "bfloat16", "float16"))

    # Test
    test_short_side: int = _number(0, (0, 4096), "test", "photographs are resized to this short side; 0 keeps them")
    background_power: float = _number(
        1.0, (0, 10), "test", "the background's probability is raised to this power; Araslanov and Roth take 3"
    )
    test_refine_steps: int = _number(
        0, (0, 100), "test", "steps of Eq. 6 that refine the mask at test; the paper takes none"
    )
    test_refine_stride: int = _number(
        2, (1, 32), "test", "at test the refinement works at the image's size over this stride"
    )
    class_cutoff: float = _number(
        0.0, (0, 1), "test", "objects below this image-level probability are left out of the mask"
    )

    # Records
    log_steps: int = _number(20, (1, 1_000_000), "records", "steps between two lines of the log")
    save_steps: int = _number(
        500, (1, 100_000_000), "records", "steps between two states to resume from; each epoch ends with one"
    )
    eval_epochs: int = _number(1, (0, 10_000), "records", "epochs between two evaluations; 0 evaluates at the end only")
    keep_states: int = _number(
        2, (1, 1000), "records", "newest states that are kept; the best checkpoint is kept besides"
    )
    previews: int = _number(4, (0, 64), "records", "validation photographs whose masks are drawn after each epoch")
    tensorboard: bool = _option(False, "records", "write TensorBoard events too")

    def __post_init__(self) -> None:
        for f in fields(self):
            _check(f, getattr(self, f.name))
        if self.output_stride not in (8, 16):
            raise UserError(f"output_stride must be 8 or 16, got {self.output_stride}")
        if self.info_patch % 2 == 0:
            raise UserError(f"info_patch must be odd, got {self.info_patch}")
        if self.teacher == "average" and not self.ema_decay:
            raise UserError("teacher average needs an average: give ema_decay, 0.996 for one")

    @property
    def network_drop_rate(self) -> float:
        """`drop_rate` where the shape cue is on; else 0, since nothing is dropped."""
        return self.drop_rate if self.shape_cue == "on" else 0.0


_LONGEST = 1000  # characters of a text


def _check(f: dataclasses.Field, value: object) -> None:
    """Raises UserError unless a field can have this value, whatever the others have."""
    fits = type(value) is f.type or (f.type is float and type(value) is int)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(misfit(f, value))
    if isinstance(value, str) and not (value.isprintable() and len(value) <= _LONGEST):
        raise UserError(f"{f.name} must be at most {_LONGEST} printable characters, got {shown(value)}")
    choices = f.metadata["choices"]
    if choices and value not in choices:
        raise UserError(f"{f.name} must be one of {', '.join(choices)}, got {shown(value)}")
    if "between" in f.metadata:
        low, high = f.metadata["between"]
        if not low <= value <= high:
            raise UserError(f"{f.name} must lie between {shown(low)} and {shown(high)}, got {shown(value)}")


def misfit(f: dataclasses.Field, value: object) -> str:
    """Why a field cannot take a value."""
    wanted = {bool: "true or false", float: "a finite number", int: "a whole number", str: "text"}[f.type]
    return f"{f.name} must be {wanted}, got {shown(value)}"


def from_dict(values: dict[str, object]) -> Config:
    """A `Config` from plain values, as they lie in a checkpoint's config.json.

    Raises:
        UserError: a key is unknown (the nearest known one is named) or a value is refused by `Config`.
    """
    if not isinstance(values, dict):
        raise UserError(f"settings must be an object of names and values, got {shown(values)}")
    known = {f.name for f in fields(Config)}
    for key in values:
        if key not in known:
            raise UserError(f"there is no setting {shown(key)}{nearest(str(key), known)}")
    return Config(**values)
