"""Training: `python -m wsss.train --preset NAME [--data ROOT] [--out DIR] [--resume] [--FIELD VALUE ...]`.

Every sample is a function of (seed, epoch, index) and every other random number of (seed, step, rank), so that a run
that was interrupted and resumed ends, on a CPU, with the weights of one that was not; a GPU's sums have no fixed order.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from wsss import UserError, checkpoint
from wsss.allocator import keep_freed_memory
from wsss.beginning import require_at_once, require_own, survey_splits, sweep
from wsss.config import Config
from wsss.data.item import Source
from wsss.data.reduced import Reduced
from wsss.data.source import require_root
from wsss.distributed import Group, joined
from wsss.epoch import Checkpoints, close_epoch
from wsss.exits import Stopped
from wsss.flags import add_flags
from wsss.loading import loader
from wsss.network import build
from wsss.objective import Schedule
from wsss.optimiser import build_optimiser, moving_average, set_poly_lr
from wsss.precision import fastest_precision
from wsss.preflight import require_sound_splits
from wsss.progress import Progress
from wsss.records import Records
from wsss.resuming import config_of_run, goes_on_by_itself
from wsss.run import IF_FULL, Run, command_line, owned
from wsss.state import Learner, has_state, load_state, newest_whole, save_state
from wsss.step import take_step
from wsss.stopping import StopRequest, exit_code_of


def train(
    config: Config,
    source: Source,
    validation: Source | None,
    out: Path,
    *,
    group: Group,
    before: Path | None = None,
    until: int | None = None,
    facts: dict[str, Any] | None = None,
    run: Run | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Train to the end, or until a signal asks to stop.

    Writes to `out`: metrics.csv, metrics.jsonl, states/ to resume from, model/ (the checkpoint last evaluated), best/
    (the one with the highest mIoU), previews/epoch_NN/.

    Args:
        validation: photographs with masks; None: nothing is evaluated, and model/ is that of the last epoch.
        before: the state to go on from, this run's or another's; None: it starts anew.
        until: number of the epoch after which it ends, for a later run to go on from; 0: before the first; None: the
            last.
        facts: written into the checkpoint beside its scores: command, commit, ...
        run: whose run.json tells how far the training is.
        stop: the signals that end it; its own unless given.

    Returns:
        The exit code: 0, or 128 + signal with the state saved.

    Raises:
        UserError: weights or a state cannot be had, the state is of a later step than the last one or differs between
            the processes, `until` is no epoch, or the batch cannot be shared by the processes.
        NotFinite, Unwritable, WorkerFailed: see `wsss.exits`; the last state stands.
    """
    last = _last_epoch(config, until, group)
    # Numbers below 1e-38 appear in the gradients as the losses fall, and make a CPU step several times slower.
    torch.set_flush_denormal(True)
    config = with_precision(config, group)
    schedule = Schedule(config, steps_per_epoch=-(-len(source) // config.batch))
    learner, step = _begun(config, source, group, before, last * schedule.steps_per_epoch)
    photographs = Reduced(source, config.short_side, config.cache and not config.workers)
    checkpoints = Checkpoints(out, config, source.classes, facts or {})
    save = partial(save_state, out / "states", learner, config=config, source=source)
    with ExitStack() as stack:
        stop = stop or stack.enter_context(StopRequest())
        stack.enter_context(stop.deferred())
        progress = None
        if group.leads:
            if not has_state(out):
                save(step)  # also shows now, not in an hour, a disk that is full
            records = Records(out, step, tensorboard=config.tensorboard)
            progress = stack.enter_context(closing(Progress(config, schedule, records, run, step, last)))

        for epoch in range(max(0, step - 1) // schedule.steps_per_epoch, last):
            if progress:
                progress.begin_epoch(epoch, step - epoch * schedule.steps_per_epoch)
            with closing(_steps_of(epoch, step, learner, photographs, schedule, group)) as steps:
                for step, factor, terms in steps:
                    signal_number = group.maximum(stop.signal)  # all processes leave at the same step
                    if progress:
                        progress.after_step(step, factor, terms)
                        if signal_number or step % config.save_steps == 0 or step % schedule.steps_per_epoch == 0:
                            save(step)
                    if signal_number:
                        return 128 + signal_number
            if progress:
                with suppress(Stopped):  # the epoch is saved; a resumed run begins by looking at it
                    close_epoch(checkpoints, learner.shipped, validation, step, progress, stop)
            if signal_number := group.maximum(stop.signal):
                return 128 + signal_number
    return 0


def _last_epoch(config: Config, until: int | None, group: Group) -> int:
    """The epoch after which the training ends. Raises UserError where it cannot begin."""
    if config.batch % group.world:
        raise UserError(f"a batch of {config.batch} cannot be shared by {group.world} processes: choose a multiple")
    if until is not None and not 0 <= until <= config.epochs:
        raise UserError(f"--until {until}: give the number of an epoch, of which there are {config.epochs}")
    return config.epochs if until is None else until


def _begun(config: Config, source: Source, group: Group, before: Path | None, end: int) -> tuple[Learner, int]:
    """The learner where the run begins, and the steps that it has taken: anew, or as a state has it.

    Raises:
        UserError: the state does not fit, is of a later step than the run's last one, or is not that of all processes.
    """
    learner = start(config, len(source.classes) + 1, group.device, pretrained=before is None)
    step = load_state(before, learner, source, config) if before else 0
    if step > end:
        more = "give it a later --until, or more --epochs"
        raise UserError(f"{before}: has taken {step} steps already, this run ends after {end}; {more}")
    if group.maximum(step) != -group.maximum(-step):  # the greatest is not the least
        raise UserError(f"{before}: other processes find another state; give all of them one folder that they share")
    if group.world > 1:
        learner.parallel = DistributedDataParallel(learner.network)
    return learner, step


def _steps_of(
    epoch: int, taken: int, learner: Learner, photographs: Reduced, schedule: Schedule, group: Group
) -> Iterator[tuple[int, float, dict[str, float]]]:
    """Take the steps of an epoch that are left when the run has taken some.

    Yields:
        After each, their number so far, the factor on the learning rates, and the terms of the loss.
    """
    config = schedule.config
    learner.parallel.train()
    with closing(loader(photographs, config, epoch, group, skip=taken - epoch * schedule.steps_per_epoch)) as views:
        for step, view in enumerate(views, taken):
            factor = set_poly_lr(learner.optimiser, step, schedule.steps, config.poly_power)
            terms = take_step(learner, view, config, schedule.at(step), group)
            yield step + 1, factor, terms


def with_precision(config: Config, group: Group) -> Config:
    """The config with a format in place of "auto"; a state holds it, so that a resumed run computes in the same one."""
    if config.precision != "auto":
        return config
    fastest = fastest_precision(group.device)
    is_slow = group.maximum(fastest == "float32")  # it is measured, and all processes must take the same
    return replace(config, precision="float32" if is_slow else fastest)


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
    return Learner(network, network, optimiser, scaler, average)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code, one of `wsss.exits`."""
    parser = argparse.ArgumentParser(prog="python -m wsss.train", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="ROOT", help="data folder; drawn shapes need none")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder, runs/PRESET unless given")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="STATE",
        help="a folder in another run's states/ to start from, with settings of its own",
    )
    parser.add_argument(
        "--until",
        type=int,
        metavar="EPOCH",
        help="end after this epoch, 0: before the first; --begin-with or --resume goes on",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out photographs with faults, and count them")
    add_flags(parser)
    arguments = parser.parse_args(argv)
    keep_freed_memory()
    return exit_code_of(lambda stop: _train(arguments, command_line("wsss.train", argv), stop), IF_FULL)


def _train(arguments: argparse.Namespace, argv: list[str], stop: StopRequest) -> int:
    out = arguments.out or Path("runs") / arguments.preset
    resume = arguments.resume or goes_on_by_itself(out)
    if arguments.resume and arguments.begin_with:
        raise UserError("--resume goes on with a run's own state, --begin-with takes another's; give one of them")
    config = config_of_run(arguments, out, resume)
    require_root(config.dataset, arguments.data)
    require_at_once(config, has_state=resume or bool(arguments.begin_with))
    surveys = survey_splits(config, arguments.data)
    require_sound_splits(surveys, skip_bad=arguments.skip_bad)
    training, *validation = (found.source for found in surveys)
    with joined(config.device) as group, ExitStack() as stack:
        facts = {"command": shlex.join(["python", *argv[1:]]), "commit": checkpoint.commit()}
        facts |= {"photographs": len(training), "skipped": sum(found.skipped for found in surveys)}
        run = None
        if group.leads:
            if not resume:
                require_own(out)
            stack.enter_context(owned(out))
            sweep(out)
            if not resume and (out / "states").exists():
                raise UserError(f"{out}: holds a run already; go on with it by --resume, or choose another --out")
            run = stack.enter_context(
                Run(out, argv, device=str(group.device), processes=group.world, **facts).recorded()
            )
            if facts["skipped"]:
                counts = (f"{found.skipped} of {found.split}" for found in surveys)
                print(f"left out for their faults: {', '.join(counts)}")
        code = train(
            config,
            training,
            validation[0] if validation else None,
            out,
            group=group,
            before=newest_whole(out / "states") if resume else arguments.begin_with,
            until=arguments.until,
            facts=facts,
            run=run,
            stop=stop,
        )
        if run is not None:
            run.end(code)
        return code


if __name__ == "__main__":
    sys.exit(main())
