"""What must hold before a training begins: checks that would otherwise fail only after hours."""

from pathlib import Path

import torch

from wsss import UserError, checkpoint
from wsss.config import Config
from wsss.distributed import pick_device, warn
from wsss.encoders import require_encoder
from wsss.network import build
from wsss.preflight import Surveyed, survey
from wsss.records import event_writer
from wsss.run import BEFORE_A_STATE
from wsss.weights import MOST_BYTES


def require_at_once(config: Config, *, has_state: bool) -> None:
    """Say before the data are looked at what else is missing, or would surprise after hours.

    Raises:
        UserError: the device, the encoder, its weights or TensorBoard are not there, or the network cannot be built, or
            is too large.
    """
    pick_device(config.device)
    if not has_state:
        require_encoder(config.encoder, config.encoder_weights)
    with torch.device("meta"):  # where a network of any size takes no memory
        network = build(config, 2, pretrained=False)
    size = sum(weight.nbytes for weight in network.state_dict().values())
    if size > MOST_BYTES:
        raise UserError(
            f"the weights would take {size / 2**30:.1f} GiB; at most {MOST_BYTES / 2**30:.0f} GiB can be read back: "
            "choose a smaller --encoder, --aspp-channels or --decoder-channels"
        )
    if config.tensorboard:
        event_writer()
    if config.cache and config.workers:
        warn(f"--cache needs --workers 0: {config.workers} processes would each hold a copy, so that there is none")
    has_mask_loss = config.supervision == "labels" and (config.pixel_loss or config.region_loss)
    if has_mask_loss and config.warmup_epochs >= config.epochs:
        warn(
            f"all {config.epochs} epochs are a warm-up of {config.warmup_epochs}, in which no mask is learned; "
            "give more --epochs or fewer --warmup-epochs"
        )


def survey_splits(config: Config, root: Path | None) -> list[Surveyed]:
    """The splits, looked at file by file: one to train on, and one to validate on unless there shall be none.

    Raises:
        UserError: there are no such data, nothing could be read of them, or the two do not have the same classes.
    """
    by_masks = config.supervision == "masks"
    if config.masks and not by_masks:
        raise UserError("--masks needs --supervision masks")
    training = survey(config.dataset, root, config.train_split, masks=by_masks, masks_from=config.masks)
    if config.val_split == "none":
        return [training]
    validation = survey(config.dataset, root, config.val_split, labelled=False, masks=True)
    if training.source.classes != validation.source.classes:
        trained, validated = (", ".join(found.source.classes) for found in (training, validation))
        raise UserError(
            f"{config.train_split} has the classes {trained}, but {config.val_split} has {validated}: "
            "give them the same, in the same order"
        )
    shared = set(training.source.names) & set(validation.source.names)
    if shared:
        warn(f"{len(shared)} photographs are both trained and validated on, {min(shared)} for one")
    return [training, validation]


def require_own(out: Path) -> None:
    """Raises UserError where a new run would stand beside, or replace, files that no run has written."""
    if not out.is_dir() or (out / "states").is_dir():  # an earlier run's; who owns it is asked first
        return
    others = {path.name for path in out.iterdir() if not checkpoint.is_left_over(path)} - BEFORE_A_STATE
    if others:
        raise UserError(f"{out}: holds {min(others)!r}, which a new run did not write; choose a new or empty --out")


def sweep(out: Path) -> None:
    """Remove what a run left that could not write to the end; also its folder of states when it had not written one."""
    states = out / "states"
    for folder in (out, states, out / "previews"):
        checkpoint.sweep(folder)
    if states.is_dir() and not any(states.iterdir()):
        states.rmdir()
