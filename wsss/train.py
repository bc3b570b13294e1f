"""Training: `python -m wsss.train --preset NAME [--data ROOT] [--out DIR] [--resume] [--FIELD VALUE ...]`.

Every sample is a function of (seed, epoch, index) and every other random number of (seed, step, rank), so that a run
that was interrupted and resumed ends with the weights of one that was not.
"""

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from wsss import UserError, checkpoint
from wsss.config import Config, add_flags, from_dict, from_flags
from wsss.data.augment import Reduced, TrainingViews, View
from wsss.data.item import Source
from wsss.data.source import read, require_sound
from wsss.distributed import Group, joined
from wsss.evaluate import evaluate, test_settings
from wsss.losses import classification_loss, pixel_loss, region_loss
from wsss.network import Output, build
from wsss.optimiser import build_optimiser, set_poly_lr
from wsss.precision import autocast_dtype
from wsss.pseudo import pseudo_mask, with_background
from wsss.records import Records
from wsss.refinement import refine

KEPT_STATES = 2


class NotFinite(RuntimeError):
    """A loss is not finite; training stops before it reaches the weights."""


def batches(length: int, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The indices of each step of an epoch: a shuffle, cut into equal batches; the last is filled up from the start.

    It does not depend on the number of processes: each takes its share of every batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(length)
    steps = -(-length // batch)
    return np.resize(order, steps * batch).reshape(steps, batch).tolist()


def pseudo_target(output: Output, image: Tensor, labels: Tensor, size: tuple[int, int], config: Config, alpha: float) -> Tensor:
    """The pseudo mask (B, h, w) of a batch at `size`: the network's own scores, refined (Sec. 3.2.1). No gradient."""
    with torch.no_grad():
        logits, probs = (_resize(x, size) for x in (output.logits, output.probs))
        refined = refine(
            F.interpolate(image, size, mode="bilinear", antialias=True),
            logits if config.refine_source == "score" else probs,
            probs,
            alpha=alpha,
            steps=config.refine_steps,
            present=with_background(labels),
        )
        return pseudo_mask(
            refined,
            labels,
            object_cutoff=config.object_cutoff,
            background_cutoff=config.background_cutoff,
            least_cutoff=config.least_cutoff,
        )


def loss_terms(
    output: Output, image: Tensor, labels: Tensor, mask: Tensor, config: Config, *, with_mask: bool, alpha: float
) -> dict[str, Tensor]:
    """The terms of Eq. 10, before their weights, and the share of pixels that have a target."""
    terms = {"classification": classification_loss(output.scores, labels)}
    if not with_mask:
        return terms
    size = tuple(side // config.refine_stride for side in image.shape[-2:])
    if config.supervision == "masks":
        target = F.interpolate(mask[:, None].float(), size, mode="nearest-exact")[:, 0].long()
    else:
        target = pseudo_target(output, image, labels, size, config, alpha)
    logits = _resize(output.logits, size)
    if config.pixel_loss:
        terms["pixel"] = pixel_loss(logits, target, labels if config.supervision == "labels" else None)
    if config.region_loss:
        terms["region"] = region_loss(logits, target, radius=config.region_radius, margin=config.region_margin)
    terms["labelled"] = (target != 255).float().mean()
    return terms


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class Schedule:
    """What changes with the step: learning rate apart, alpha of Eq. 5 and lambda of Eq. 9."""

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self.config = config
        self.steps = config.epochs * steps_per_epoch
        masks_from_labels = config.supervision == "labels"
        self.warmup = min(config.warmup_epochs, config.epochs) * steps_per_epoch if masks_from_labels else 0

    def has_mask_loss(self, step: int) -> bool:
        """Whether the mask losses act; a network that only classifies has none to learn from at first."""
        return step >= self.warmup and (self.config.pixel_loss or self.config.region_loss)

    def alpha(self, step: int) -> float:
        """Moves linearly from alpha_start, when the mask losses begin, to alpha."""
        share = max(0, step - self.warmup) / max(1, self.steps - self.warmup)
        return self.config.alpha_start + share * (self.config.alpha - self.config.alpha_start)

    def region_weight(self, step: int) -> float:
        """Rises linearly from 0 (Sec. 3.2.2)."""
        return self.config.region_weight * step / self.steps


class Stop:
    """Remembers a signal that asks the run to end, so that the step at hand is finished and saved."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number


def train(config: Config, source: Source, validation: Source | None, out: Path, *, group: Group, resume: bool, facts: dict) -> int:
    """Train to the end, or until a signal. Returns the exit code: 0, or 128 + signal with the state saved.

    Raises:
        UserError: weights or a state cannot be had, or the batch cannot be shared by the processes.
        NotFinite: a loss is NaN or infinite.
    """
    if config.batch % group.world:
        raise UserError(f"a batch of {config.batch} cannot be shared by {group.world} processes: choose a multiple")
    if len(source) == 0:
        raise UserError("the training list is empty")
    # Numbers below 1e-38 appear in the gradients as the losses fall, and make a CPU step several times slower.
    torch.set_flush_denormal(True)
    torch.manual_seed(config.seed)
    network = build(config, len(source.classes) + 1, pretrained=not resume).to(group.device, memory_format=torch.channels_last)
    optimiser = build_optimiser(
        network, lr=config.lr, encoder_lr=config.encoder_lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True) if config.ema_decay else None
    step = _resume(out, network, optimiser, average, source.classes) if resume else 0
    wrapped = DistributedDataParallel(network) if group.world > 1 else network
    dtype = autocast_dtype(config.precision, group.device)
    scaler = torch.amp.GradScaler(group.device.type, enabled=dtype == torch.float16)
    steps_per_epoch = -(-len(source) // config.batch)
    schedule = Schedule(config, steps_per_epoch)
    views_of = Reduced(source, config.short_side, config.cache)
    records = Records(out, step) if group.leads else None
    stop = Stop()
    begun, first = time.perf_counter(), step

    for epoch in range(step // steps_per_epoch, config.epochs):
        wrapped.train()
        bar = tqdm(total=steps_per_epoch, initial=step % steps_per_epoch, desc=f"epoch {epoch + 1}/{config.epochs}", disable=not group.leads)
        for view in _loader(views_of, config, epoch, step % steps_per_epoch, group):
            torch.manual_seed(config.seed * 1_000_003 + step * group.world + group.rank)
            decay = set_poly_lr(optimiser, step, schedule.steps, config.poly_power)
            image = view.image.to(group.device, non_blocking=True, memory_format=torch.channels_last).float() / 255
            labels, mask = view.labels.to(group.device), view.mask.to(group.device)
            with torch.autocast(group.device.type, dtype) if dtype else nullcontext():
                output = wrapped(image)
            terms = loss_terms(
                output, image, labels, mask, config, with_mask=schedule.has_mask_loss(step), alpha=schedule.alpha(step)
            )
            total = terms["classification"] + terms.get("pixel", 0) + schedule.region_weight(step) * terms.get("region", 0)
            optimiser.zero_grad()
            scaler.scale(total).backward()
            logs = (step + 1) % config.log_steps == 0 or (step + 1) % steps_per_epoch == 0
            if logs or group.device.type == "cpu":  # on a GPU, looking at the loss waits for it
                _require_finite({**terms, "total": total}, step, view, source)
            scaler.step(optimiser)
            scaler.update()
            if average is not None:
                average.update_parameters(network)
            step += 1
            bar.update()
            if logs and group.leads:
                seconds = time.perf_counter() - begun
                speed = (step - first) * config.batch / seconds
                row = {"step": step, "epoch": epoch + 1, "seconds": round(seconds, 1), "images_per_second": round(speed, 2)}
                row |= {"lr": config.lr * decay, "alpha": schedule.alpha(step - 1), "region_weight": schedule.region_weight(step - 1)}
                row |= {name: round(float(value.detach()), 5) for name, value in {**terms, "total": total}.items()}
                records.add(row)
                bar.set_postfix_str(f"{speed:.1f} images/s, loss {row['total']:.3f}")
            if stop.signal or (step % config.save_steps == 0 and step % steps_per_epoch):
                _save_state(out, network, optimiser, average, step, config, source.classes, group)
            if stop.signal:
                return 128 + stop.signal
        bar.close()
        last = epoch + 1 == config.epochs
        kept = average.module if average is not None else network
        if group.leads and (last or (config.eval_epochs and (epoch + 1) % config.eval_epochs == 0)):
            scores = {}
            if validation is not None:
                measured = evaluate(kept.eval(), validation, **test_settings(config), progress=True)
                scores = measured.as_dict(source.classes)
                row = {"step": step, "epoch": epoch + 1, "seconds": round(time.perf_counter() - begun, 1)}
                records.add(row | {name: scores[name] for name in ("miou", "mean_boundary_iou", "accuracy")})
                print(f"epoch {epoch + 1}: mIoU {100 * measured.miou:.2f}, boundary IoU {100 * measured.mean_boundary_iou:.2f}")
            checkpoint.save(out / "model", kept.state_dict(), config, source.classes, facts | {"step": step, "val": scores})
        _save_state(out, network, optimiser, average, step, config, source.classes, group)
    return 0


def _loader(views_of: Reduced, config: Config, epoch: int, done: int, group: Group) -> Iterator[View]:
    """The batches of an epoch that are still to do, this process's share of each."""
    views = TrainingViews(
        views_of,
        crop=config.crop,
        least_scale=config.least_scale,
        color_jitter=config.color_jitter,
        seed=config.seed,
        epoch=epoch,
        with_masks=config.supervision == "masks",
    )
    order = [batch[group.rank :: group.world] for batch in batches(len(views), config.batch, config.seed, epoch)]
    return iter(
        DataLoader(
            views,
            batch_sampler=order[done:],
            num_workers=config.workers,
            pin_memory=group.device.type == "cuda",
            timeout=120 if config.workers else 0,  # a worker that hangs would otherwise hang the run
        )
    )


def _require_finite(terms: dict[str, Tensor], step: int, view: View, source: Source) -> None:
    for name, value in terms.items():
        if not torch.isfinite(value):
            names = ", ".join(source.names[i] for i in view.index.tolist())
            raise NotFinite(f"the {name} loss is {float(value)} at step {step + 1}; photographs of the batch: {names}")


def _save_state(
    out: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: AveragedModel | None,
    step: int,
    config: Config,
    classes: tuple[str, ...],
    group: Group,
) -> None:
    """Write what a resumed run needs; the states before the last few are removed."""
    if not group.leads:
        return
    state = {"step": step, "optimiser": optimiser.state_dict(), "average": average.state_dict() if average else None}
    folder = out / "states" / f"step-{step:06d}"
    checkpoint.save(
        folder, network.state_dict(), config, classes, {"step": step}, {"training.pt": lambda path: torch.save(state, path)}
    )
    checkpoint.keep_newest(out / "states", KEPT_STATES)


def _resume(
    out: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: AveragedModel | None, classes: tuple[str, ...]
) -> int:
    """Load the newest state of the run; returns its step. Raises UserError when there is none or it does not fit."""
    folder = checkpoint.newest(out / "states")
    content = checkpoint.read_config(folder)
    if tuple(content["classes"]) != tuple(classes):
        raise UserError(f"{folder}: was trained on {', '.join(content['classes'])}, the data hold {', '.join(classes)}")
    checkpoint.fit(network, checkpoint.read_weights(folder, content["sha256"]), folder)
    state = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
    optimiser.load_state_dict(state["optimiser"])
    if average is not None:
        average.load_state_dict(state["average"])
    return state["step"]


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
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
        facts = {
            "command": "python -m wsss.train " + " ".join(sys.argv[1:] if argv is None else argv),
            "commit": checkpoint.commit(),
            "photographs": len(source),
        }
        with joined(config.device) as group:
            _make(out)
            return train(config, source, validation, out, group=group, resume=arguments.resume, facts=facts)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return 3


def _config_of_run(arguments: argparse.Namespace, out: Path) -> Config:
    """The flags' config for a new run; for a resumed one its own, in which only what changes no result may be set anew."""
    config = from_flags(arguments)
    states = out / "states"
    if not arguments.resume:
        if states.exists():
            raise UserError(f"{out}: holds a run already; go on with it by --resume, or choose another --out")
        return config
    saved = from_dict(checkpoint.read_config(checkpoint.newest(states))["config"])
    free = {f.name for f in fields(Config) if f.metadata["group"] == "records"} | {"workers", "device"}
    given = {f.name: getattr(arguments, f.name) for f in fields(Config) if hasattr(arguments, f.name)}
    for name, value in given.items():
        if name not in free and value != getattr(saved, name):
            raise UserError(f"the run in {out} has {name} = {getattr(saved, name)}: a resumed run cannot change it to {value}")
    return dataclasses.replace(saved, **{name: value for name, value in given.items() if name in free})


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made a folder ({error.strerror})") from None


if __name__ == "__main__":
    sys.exit(main())
