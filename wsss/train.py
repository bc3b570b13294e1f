"""Training: `python -m wsss.train --preset NAME [--data ROOT] [--out DIR] [--resume] [--FIELD VALUE ...]`.

Every sample is a function of (seed, epoch, index) and every other random number of (seed, step, rank), so that a run
that was interrupted and resumed ends with the weights of one that was not.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from wsss import UserError, checkpoint
from wsss.config import Config, add_flags, from_dict, from_flags
from wsss.data.augment import Reduced, TrainingViews, View
from wsss.data.item import Source
from wsss.data.source import read, require_sound
from wsss.distributed import Group, joined
from wsss.evaluate import evaluate
from wsss.network import build
from wsss.objective import Schedule, loss_terms, total_loss
from wsss.optimiser import build_optimiser, moving_average, set_poly_lr
from wsss.precision import autocast, fastest_precision
from wsss.predict import prediction_settings
from wsss.records import Records
from wsss.state import Learner, load_state, save_state

_WORKER_TIMEOUT = 120  # seconds; without one, a worker that hangs would hang the run


class NotFinite(RuntimeError):
    """A loss is not finite; training stops before it reaches the weights."""


class StopRequest:
    """Remembers a signal to end, so that the step at hand is finished and saved; a second signal kills."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: object) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)


def train(
    config: Config,
    source: Source,
    validation: Source,
    out: Path,
    *,
    group: Group,
    resume: bool = False,
    facts: dict[str, Any] | None = None,
) -> int:
    """Train to the end, or until a signal asks to stop.

    Writes to `out`: metrics.csv, metrics.jsonl, states/ to resume from, model/ (the checkpoint last evaluated).

    Args:
        facts: written into the checkpoint beside its scores: command, commit, ...

    Returns:
        The exit code: 0, or 128 + signal with the state saved.

    Raises:
        UserError: weights or a state cannot be had, or the batch cannot be shared by the processes.
        NotFinite: a loss is NaN or infinite.
    """
    if config.batch % group.world:
        raise UserError(f"a batch of {config.batch} cannot be shared by {group.world} processes: choose a multiple")
    # Numbers below 1e-38 appear in the gradients as the losses fall, and make a CPU step several times slower.
    torch.set_flush_denormal(True)
    if config.precision == "auto":  # written into the states, so that a resumed run computes in the same format
        config = replace(config, precision=fastest_precision(group.device))
    learner = start(config, len(source.classes) + 1, group.device, pretrained=not resume)
    step = load_state(out / "states", learner, source.classes) if resume else 0
    network = DistributedDataParallel(learner.network) if group.world > 1 else learner.network
    schedule = Schedule(config, steps_per_epoch=-(-len(source) // config.batch))
    photographs = Reduced(source, config.short_side, config.cache)
    records = Records(out, step) if group.leads else None
    stop = StopRequest()
    begun, first_step = time.perf_counter(), step

    for epoch in range(step // schedule.steps_per_epoch, config.epochs):
        network.train()
        done = step % schedule.steps_per_epoch
        bar = tqdm(initial=done, total=schedule.steps_per_epoch, desc=f"epoch {epoch + 1}", disable=not group.leads)
        for view in loader(photographs, config, epoch, group, skip=done):
            torch.manual_seed(config.seed * 1_000_003 + step * group.world + group.rank)
            factor = set_poly_lr(learner.optimiser, step, schedule.steps, config.poly_power)
            terms = take_step(network, learner, view, config, schedule, step, source.names, group.device)
            step += 1
            bar.update()
            if group.leads and (step % config.log_steps == 0 or step % schedule.steps_per_epoch == 0):
                speed = (step - first_step) * config.batch / (time.perf_counter() - begun)
                row = _row(step, epoch, begun) | {"images_per_second": round(speed, 2), "lr": config.lr * factor}
                row |= {"alpha": schedule.alpha(step - 1), "region_weight": schedule.region_weight(step - 1)}
                records.add(row | {name: round(float(value), 5) for name, value in terms.items()})
                bar.set_postfix_str(f"{speed:.1f} images/s, loss {float(terms['total']):.3f}")
            if group.leads and (stop.signal or step % config.save_steps == 0):
                save_state(out / "states", learner, step, config, source.classes)
            if stop.signal:
                return 128 + stop.signal
        bar.close()
        if group.leads:
            if epoch + 1 == config.epochs or (config.eval_epochs and (epoch + 1) % config.eval_epochs == 0):
                scores = _evaluate(learner, validation, config)
                records.add(_row(step, epoch, begun) | {name: scores[name] for name in _HEADLINES})
                print(f"epoch {epoch + 1}: mIoU {100 * scores['miou']:.2f}")
                known = {**(facts or {}), "step": step, "val": scores}
                checkpoint.save(out / "model", learner.kept.state_dict(), config, source.classes, known)
            save_state(out / "states", learner, step, config, source.classes)
    return 0


_HEADLINES = ("miou", "mean_boundary_iou", "accuracy")


def start(config: Config, num_classes: int, device: torch.device, *, pretrained: bool) -> Learner:
    """A network at its beginning, and its optimiser. Raises UserError when ImageNet weights cannot be had."""
    torch.manual_seed(config.seed)
    network = build(config, num_classes, pretrained=pretrained).to(device, memory_format=torch.channels_last)
    optimiser = build_optimiser(
        network, lr=config.lr, encoder_lr=config.encoder_lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    average = None
    if config.ema_decay:
        average = AveragedModel(network, multi_avg_fn=moving_average(config.ema_decay), use_buffers=True)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    return Learner(network, optimiser, scaler, average)


def take_step(
    network: torch.nn.Module,
    learner: Learner,
    view: View,
    config: Config,
    schedule: Schedule,
    step: int,
    names: tuple[str, ...],
    device: torch.device,
) -> dict[str, Tensor]:
    """One step of the optimiser. Returns the loss terms and their total, detached.

    `network` is the learner's, or its wrapper for several processes.

    Raises:
        NotFinite: naming the term, the step and the photographs, before the weights are touched.
    """
    image = view.image.to(device, non_blocking=True, memory_format=torch.channels_last).float() / 255
    labels, mask = view.labels.to(device), view.mask.to(device)
    with autocast(config.precision, device):
        output = network(image)
    terms = loss_terms(output, image, labels, mask, config, schedule, step)
    terms["total"] = total_loss(terms, schedule.region_weight(step))
    if device.type == "cpu" or step % config.log_steps == 0:  # on a GPU, to look at a number is to wait for it
        _require_finite(terms, step, [names[i] for i in view.index.tolist()])
    learner.optimiser.zero_grad()
    learner.scaler.scale(terms["total"]).backward()
    learner.scaler.step(learner.optimiser)
    learner.scaler.update()
    if learner.average is not None:
        learner.average.update_parameters(learner.network)
    return {name: value.detach() for name, value in terms.items()}


def batches(length: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The indices of each step of an epoch: a shuffle, cut into equal batches; the last is filled up from the start.

    It does not depend on the number of processes: each takes its share of every batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(length)
    steps = -(-length // batch)
    return np.resize(order, (steps, batch)).tolist()


def loader(photographs: Source, config: Config, epoch: int, group: Group, *, skip: int = 0) -> Iterator[View]:
    """This process's share of the batches of an epoch, without the first `skip`."""
    views = TrainingViews(
        photographs,
        crop=config.crop,
        least_scale=config.least_scale,
        color_jitter=config.color_jitter,
        seed=config.seed,
        epoch=epoch,
        with_masks=config.supervision == "masks",
    )
    order = batches(len(views), config.batch, config.seed, epoch)[skip:]
    return iter(
        DataLoader(
            views,
            batch_sampler=[batch[group.rank :: group.world] for batch in order],
            num_workers=config.workers,
            pin_memory=group.device.type == "cuda",
            timeout=_WORKER_TIMEOUT if config.workers else 0,
        )
    )


def _require_finite(terms: dict[str, Tensor], step: int, names: list[str]) -> None:
    for term, value in terms.items():
        if not torch.isfinite(value):
            raise NotFinite(
                f"the {term} loss is {float(value)} at step {step + 1}; the photographs were {', '.join(names)}"
            )


def _row(step: int, epoch: int, begun: float) -> dict[str, Any]:
    return {"step": step, "epoch": epoch + 1, "seconds": round(time.perf_counter() - begun, 1)}


def _evaluate(learner: Learner, validation: Source, config: Config) -> dict[str, Any]:
    scores = evaluate(learner.kept.eval(), validation, **prediction_settings(config), progress=True)
    return scores.as_dict(validation.classes)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: 2 for a mistake of the user, 3 for a loss that is not finite."""
    parser = argparse.ArgumentParser(prog="python -m wsss.train", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="ROOT", help="data folder; drawn shapes need none")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder, runs/PRESET unless given")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    add_flags(parser)
    arguments = parser.parse_args(argv)
    out = arguments.out or Path("runs") / arguments.preset
    try:
        config = _config_of_run(arguments, out)
        source = read(config.dataset, arguments.data, config.train_split)
        validation = read(config.dataset, arguments.data, config.val_split)
        require_sound(source, masks=config.supervision == "masks")
        require_sound(validation, masks=True)
        with joined(config.device) as group:
            _make(out)
            facts = {
                "command": "python -m wsss.train " + " ".join(sys.argv[1:] if argv is None else argv),
                "commit": checkpoint.commit(),
                "photographs": len(source),
            }
            return train(config, source, validation, out, group=group, resume=arguments.resume, facts=facts)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return 3


def _config_of_run(arguments: argparse.Namespace, out: Path) -> Config:
    """The flags' config for a new run; for a resumed one its own, but for settings that change no result."""
    config = from_flags(arguments)
    states = out / "states"
    if not arguments.resume:
        if states.exists():
            raise UserError(f"{out}: holds a run already; go on with it by --resume, or choose another --out")
        return config
    saved = from_dict(checkpoint.read_config(checkpoint.newest(states))["config"])
    free = {f.name for f in fields(Config) if f.metadata["group"] == "records"} | {"workers", "cache", "device"}
    given = {f.name: getattr(arguments, f.name) for f in fields(Config) if hasattr(arguments, f.name)}
    for name, value in given.items():
        if name not in free and value != getattr(saved, name):
            raise UserError(f"{out}: the run has {name} {getattr(saved, name)}, it cannot be resumed with {value}")
    return replace(saved, **{name: value for name, value in given.items() if name in free})


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made a folder ({error.strerror})") from None


if __name__ == "__main__":
    sys.exit(main())
