"""How fast the network trains and is evaluated beside loops as one writes them at first, and what the method adds."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch

from analysis.measuring import CPU, Row, alternating, at_least_in_rate, at_most, in_turn, on
from analysis.peers import straightforward_evaluation, straightforward_step, with_convolutions_as_published
from analysis.timing import SIZE
from wsss.config import Config
from wsss.data.item import Photographs
from wsss.data.reduced import Reduced
from wsss.data.shapes import Shapes
from wsss.distributed import Group
from wsss.evaluate import evaluate
from wsss.loading import loader
from wsss.losses import region_loss
from wsss.network import build
from wsss.objective import Moment, Schedule
from wsss.precision import fastest_precision
from wsss.presets import animals
from wsss.probabilities import PredictionSettings
from wsss.step import take_step
from wsss.train import start

ALONE = Group(0, 1, CPU)


def training_rows(pairs: int = 11, device: torch.device = CPU) -> Iterator[Row]:
    """The method's share of a training step of `animals`, on drawn pictures of a photograph's size.

    As in the paper the network is its own teacher; what the preset's takes besides has a row of its own, of a third of
    the pairs. Two steps differ by less than a busy machine makes of one: hence so many, and the median of what the two
    of a pair differ by, not the difference of the medians.
    """
    group = Group(0, 1, device)
    config = replace(animals(), precision=fastest_precision(device), cache=True, teacher="network")
    plain = replace(config, shape_cue="none", pixel_loss=False, region_loss=False)
    torch.set_flush_denormal(True)
    source = Shapes(config.batch, 0, (256, 341))
    view = next(loader(source, config, 0, group))

    def stepper(config: Config) -> Callable[[], object]:
        learner = start(config, len(source.classes) + 1, device, pretrained=True)
        learner.network.train()
        return lambda: take_step(learner, view, config, _with_masks(config), group)

    seconds = in_turn(stepper(config), stepper(plain), pairs)
    added, theirs = np.median(seconds[:, 0] - seconds[:, 1]), np.median(seconds[:, 1])
    work = f"SCM + SPR + pseudo masks + region loss in a step, its own teacher{on(device)}"
    yield at_most(work, max(0.0, float(added)), "step of the plain network", float(theirs), 0.1)
    average, ours = alternating(stepper(replace(config, teacher="average")), stepper(config), pairs // 3)
    work, more = f"a step with the weights' average as the teacher{on(device)}", average / ours
    yield Row(work, 1e3 * average, "the network as its own", 1e3 * ours, "ms", more, "", True)
    side = config.crop // config.refine_stride
    logits = torch.randn(config.batch, 7, side, side, device=device).requires_grad_()
    pseudo = torch.randint(0, 3, (config.batch, side, side), device=device)
    region, _ = alternating(lambda: torch.autograd.grad(region_loss(logits, pseudo), logits), lambda: None, pairs)
    yield at_most(f"region loss in a step{on(device)}", region, "our step", ours, 0.12)


def _with_masks(config: Config) -> Moment:
    """The first step at which the mask losses act."""
    schedule = Schedule(config, steps_per_epoch=100)
    return schedule.at(schedule.warmup)


def throughput_row(photographs: Photographs, pairs: int = 3) -> Row:
    """Training on a batch of photographs with its loading, beside the straightforward loop.

    In both the network is its own teacher: the peer keeps no average.
    """
    config = replace(animals(), precision=fastest_precision(CPU), teacher="network")
    reduced = Reduced(photographs, config.short_side, config.cache)
    learners = [start(config, len(photographs.classes) + 1, CPU, pretrained=True) for _ in range(2)]
    learners[0].network.train()
    with_convolutions_as_published(learners[1].network.to(memory_format=torch.contiguous_format), config)
    now = _with_masks(config)

    def ours() -> None:
        view = next(loader(reduced, config, 0, ALONE))
        take_step(learners[0], view, config, now, ALONE)

    def straightforward() -> None:
        straightforward_step(learners[1], photographs, config, now)

    mine, theirs = alternating(ours, straightforward, pairs)
    rates = len(photographs) / mine, len(photographs) / theirs
    return at_least_in_rate("training `animals`, its own teacher", rates[0], "straightforward loop", rates[1], 1.5)


def evaluation_row(photographs: int = 200, straightforward: int = 40, pairs: int = 2) -> Row:
    """Scores of drawn pictures of a photograph's size, beside the straightforward loop.

    The loop goes through a few of them, since each costs it the same; what our processes take to begin counts.
    """
    config, source = animals(), Shapes(photographs, 0, SIZE)
    few = Shapes(straightforward, 0, SIZE)
    plain = build(config, len(source.classes) + 1, pretrained=False)
    network = deepcopy(plain).eval().to(memory_format=torch.channels_last)  # as a checkpoint is loaded
    with_convolutions_as_published(plain, config)
    plain.eval()
    mine, theirs = alternating(
        lambda: evaluate(network, source, PredictionSettings(short_side=config.test_short_side)),
        lambda: straightforward_evaluation(plain, few, config.test_short_side),
        pairs,
        compiles=False,
    )
    rates = photographs / mine, straightforward / theirs
    return at_least_in_rate(f"evaluation of {photographs} photographs", rates[0], "straightforward loop", rates[1], 1.5)
