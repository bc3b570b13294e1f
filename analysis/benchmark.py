"""How fast the method is beside its peers: `python -m analysis.benchmark [--out DIR]`.

Writes benchmark.csv, benchmark.md and benchmark.html into runs/results.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import httpx
import numpy as np
import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from gradio_client import Client, handle_file
from PIL import Image
from plotly.subplots import make_subplots
from torch import Tensor

from analysis.measuring import Row, alternating, at_least, at_most, bandwidth, peak_bytes
from analysis.peers import (
    pamr,
    region_loss_by_unfold,
    straightforward_evaluation,
    straightforward_step,
    with_convolutions_as_published,
)
from analysis.tables import lines
from analysis.timing import PHOTOGRAPH, ROOT, SIZE, serve
from wsss.allocator import keep_freed_memory
from wsss.config import Config
from wsss.crf import crf
from wsss.data.augment import Reduced
from wsss.data.item import Photographs, read_rgb
from wsss.data.shapes import Shapes
from wsss.distributed import Group
from wsss.evaluate import evaluate
from wsss.loading import loader
from wsss.losses import region_loss
from wsss.network import build
from wsss.objective import Moment, Schedule
from wsss.precision import fastest_precision
from wsss.presets import animals
from wsss.refinement import DILATIONS, affinity, kernel, refine, spread
from wsss.shape_cue import sample_offsets, self_information
from wsss.step import take_step
from wsss.train import start

CPU = torch.device("cpu")
ALONE = Group(0, 1, CPU)


def scene(batch: int, classes: int, size: tuple[int, int], present: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A photograph, smooth scores, their softmax, and which classes are present."""
    rgb = cv2.resize(read_rgb(PHOTOGRAPH), size[::-1], interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(rgb).permute(2, 0, 1).float().div(255).expand(batch, -1, -1, -1).contiguous()
    coarse = 2 * torch.randn(batch, classes, 12, 16, generator=torch.Generator().manual_seed(0))
    scores = F.interpolate(coarse, size, mode="bilinear")
    return image, scores, scores.softmax(1), (torch.arange(classes) < present).expand(batch, -1)


def refinement_rows(size: tuple[int, int] = SIZE, pairs: int = 5, least: float = 35) -> Iterator[Row]:
    """One photograph of 3 present classes: PAMR, roofline, new alpha, memory."""
    image, *maps, present = scene(1, 21, size, 3)
    every = alternating(lambda: refine(image, *maps, present=present), lambda: pamr(image, maps[1], 10), min(3, pairs))
    work = f"SPR, {size[1]}x{size[0]}, 3 of 21 classes, T = 10"
    yield at_least(work, *_named(*every, "PAMR as built, of all 21"), least)
    image, scores, probs, present = scene(1, 3, size, 3)
    work = f"SPR, {size[1]}x{size[0]}, 3 classes, T = 10"

    def ours() -> Tensor:
        return refine(image, scores, probs, present=present)

    mine, theirs = alternating(ours, lambda: pamr(image, probs, 10), pairs)
    yield Row("the same, PAMR of 3 too", 1e3 * mine, "PAMR as built", 1e3 * theirs, "ms", theirs / mine, "", True)
    copy = bandwidth()
    mine, copied = alternating(ours, copy, pairs)
    moved = 10 * 4 * probs.numel() * (8 * len(DILATIONS) + 2)  # each step reads weights and maps, and writes maps
    speed = 2 * 4 * 100_000_000 / copied
    yield at_most(work, mine, f"memory roofline at {speed / 1e9:.1f} GB/s", moved / speed, 2)
    color, label = kernel(image), kernel(scores.transpose(0, 1))

    def new_alpha() -> None:
        for _ in spread(probs[0], affinity(color, label, 0.5), 10):
            pass

    yield at_most("new alpha, kernels kept", *_named(*alternating(new_alpha, ours, pairs), "full SPR"), 0.6)
    array = 4 * probs.numel() * 8 * len(DILATIONS)
    mine, theirs = peak_bytes(ours), peak_bytes(lambda: pamr(image, probs, 1))
    if not mine:
        return
    yield at_most("SPR, peak extra memory", mine, "one affinity array", array, 1.3, "MB")
    yield Row(
        "the same of PAMR as built", theirs / 1e6, "one affinity array", array / 1e6, "MB", theirs / array, "", True
    )


def batch_row(batch: int = 16, classes: int = 21, size: int = 112, pairs: int = 5, device: torch.device = CPU) -> Row:
    """A training batch, of which PAMR refines all classes and we those that are present."""
    *maps, present = scene(batch, classes, (size, size), 3)
    image, scores, probs = (x.to(device) for x in maps)  # the labels stay with the host, as in training
    mine, theirs = alternating(
        lambda: refine(image, scores, probs, present=present), lambda: pamr(image, probs, 10), pairs
    )
    work = f"SPR, {batch} x {size}x{size}, 3 of {classes} classes, T = 10{_there(device)}"
    return at_least(work, mine, "PAMR as built", theirs, 30 if device == CPU else 1)


def crf_row(pairs: int = 5) -> Row:
    """Beside the dense CRF on the same photograph and classes."""
    image, scores, probs, present = scene(1, 3, SIZE, 3)
    rgb = (255 * image[0]).byte().permute(1, 2, 0).contiguous().numpy()
    mine, theirs = alternating(
        lambda: refine(image, scores, probs, present=present), lambda: crf(rgb, probs[0].numpy(), steps=10), pairs
    )
    return at_least("SPR, the same photograph", mine, "pydensecrf, 10 iterations", theirs, 1)


def information_row(samples: int, limit: float, pairs: int = 5) -> Row:
    """Self-information of a photograph against a limit in seconds; 0 samples take all neighbours."""
    image = scene(1, 3, SIZE, 3)[0]
    offsets = sample_offsets(7, samples, torch.Generator().manual_seed(0))
    mine, _ = alternating(lambda: self_information(image, offsets), lambda: None, pairs)
    work = f"self-information, {SIZE[1]}x{SIZE[0]}, {len(offsets)} neighbours"
    return at_most(work, mine, "limit", limit, 1)


def region_row(batch: int = 16, size: int = 56, pairs: int = 5) -> Row:
    """The region loss, forward and backward."""
    logits = torch.randn(batch, 7, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pseudo = torch.randint(0, 3, (batch, size // 8, size // 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    mine, theirs = alternating(
        lambda: torch.autograd.grad(region_loss(logits, pseudo), logits),
        lambda: torch.autograd.grad(region_loss_by_unfold(logits, pseudo), logits),
        pairs,
    )
    return at_least(f"region loss, {batch} x 7 x {size}x{size}, radius 3", mine, "unfold version", theirs, 5)


def training_rows(pairs: int = 5, device: torch.device = CPU) -> Iterator[Row]:
    """The method's share of a training step of `animals`, on drawn pictures of a photograph's size.

    As in the paper the network is its own teacher; what the preset's takes besides has a row of its own.
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
        return lambda: take_step(learner.network, learner, view, config, _with_masks(config), source.names, group)

    ours, theirs = alternating(stepper(config), stepper(plain), pairs)
    work = f"SCM + SPR + pseudo masks + region loss in a step, its own teacher{_there(device)}"
    yield at_most(work, max(0, ours - theirs), "step of the plain network", theirs, 0.1)
    average, ours = alternating(stepper(replace(config, teacher="average")), stepper(config), pairs)
    work, more = f"a step with the weights' average as the teacher{_there(device)}", average / ours
    yield Row(work, 1e3 * average, "the network as its own", 1e3 * ours, "ms", more, "", True)
    side = config.crop // config.refine_stride
    logits = torch.randn(config.batch, 7, side, side, device=device).requires_grad_()
    pseudo = torch.randint(0, 3, (config.batch, side, side), device=device)
    region, _ = alternating(lambda: torch.autograd.grad(region_loss(logits, pseudo), logits), lambda: None, pairs)
    yield at_most(f"region loss in a step{_there(device)}", region, "our step", ours, 0.12)


def _with_masks(config: Config) -> Moment:
    """The first step at which the mask losses act."""
    schedule = Schedule(config, steps_per_epoch=100)
    return schedule.at(schedule.warmup)


def throughput_row(folder: Path, pairs: int = 3) -> Row:
    """Images a second of training with its loading, beside the straightforward loop, on photographs in `folder`.

    In both the network is its own teacher: the peer keeps no average.
    """
    config = replace(animals(), precision=fastest_precision(ALONE.device), teacher="network")
    photographs = _photographs(folder, config.batch)
    reduced = Reduced(photographs, config.short_side, config.cache)
    learners = [start(config, len(photographs.classes) + 1, ALONE.device, pretrained=True) for _ in range(2)]
    with_convolutions_as_published(learners[1].network.to(memory_format=torch.contiguous_format), config)
    now = _with_masks(config)

    def ours() -> None:
        view = next(loader(reduced, config, 0, ALONE))
        take_step(learners[0].network.train(), learners[0], view, config, now, photographs.names, ALONE)

    def straightforward() -> None:
        straightforward_step(learners[1], photographs, config, now)

    mine, theirs = alternating(ours, straightforward, pairs)
    speeds = config.batch / mine, config.batch / theirs
    ratio = theirs / mine
    return Row(
        "training `animals`, its own teacher",
        speeds[0],
        "straightforward loop",
        speeds[1],
        "images/s",
        ratio,
        "at least 1.5",
        ratio >= 1.5,
    )


def evaluation_row(photographs: int = 200, pairs: int = 2) -> Row:
    """Scores of drawn pictures of a photograph's size, beside the straightforward loop."""
    config, source = animals(), Shapes(photographs, 0, SIZE)
    plain = build(config, len(source.classes) + 1, pretrained=False)
    network = deepcopy(plain).eval().to(memory_format=torch.channels_last)  # as a checkpoint is loaded
    with_convolutions_as_published(plain, config)
    plain.eval()
    mine, theirs = alternating(
        lambda: evaluate(network, source, short_side=config.test_short_side),
        lambda: straightforward_evaluation(plain, source, config.test_short_side),
        pairs,
    )
    return at_least(f"evaluation of {photographs} photographs", mine, "straightforward loop", theirs, 1.5)


def app_rows(folder: Path, pictures: int = 200) -> Iterator[Row]:
    """The page's start, and its memory after photographs in `folder` were segmented."""
    begun = time.perf_counter()
    process, address = serve(ROOT / "checkpoints" / "animals")
    try:
        httpx.get(address).raise_for_status()
        seconds = time.perf_counter() - begun
        yield at_most("app: import to first page", seconds, "limit", 12, 1)
        visitor = Client(address, verbose=False)
        for file in _photographs(folder, pictures).images:
            visitor.predict(handle_file(str(file)), 0, api_name="/segment")
        memory = psutil.Process(process.pid).memory_info().rss
        yield at_most(f"app: memory after {pictures} photographs", memory, "limit", 1.5e9, 1, "MB")
    finally:
        process.terminate()
        process.wait()


def growth(pairs: int = 2) -> pd.DataFrame:
    """Time of SPR, also by pixel and present class, over image size, present classes, T, batch, and absent classes."""
    rows = []

    def add(varied: str, value: int, size: int, present: int, steps: int, batch: int, classes: int) -> None:
        image, scores, probs, there = scene(batch, classes, (size, size), present)
        seconds, _ = alternating(lambda: refine(image, scores, probs, present=there, steps=steps), lambda: None, pairs)
        rows.append((varied, value, 1e3 * seconds, 1e9 * seconds / (batch * present * size**2)))

    for size in (112, 224, 448, 1000):
        add("side in pixels", size, size, 3, 10, 1, 3)
    for present in (2, 5, 10, 21):
        add("present classes", present, 224, present, 10, 1, 21)
    for steps in (0, 5, 10, 20):
        add("T", steps, 448, 3, steps, 1, 3)
    for batch in (1, 2, 4, 16):
        add("batch", batch, 112, 3, 10, batch, 3)
    for classes in (3, 7, 21):
        add("classes, 3 of them present", classes, 224, 3, 10, 1, classes)
    return pd.DataFrame(rows, columns=["varied", "value", "ms", "ns per pixel and present class"])


def _there(device: torch.device) -> str:
    return "" if device == CPU else f", on {torch.cuda.get_device_name(device)}"


def _named(ours: float, theirs: float, peer: str) -> tuple[float, str, float]:
    return ours, peer, theirs


def _photographs(folder: Path, number: int) -> Photographs:
    """`number` JPEG files of a photograph's size, each a turn of one picture."""
    rgb = cv2.resize(read_rgb(PHOTOGRAPH), SIZE[::-1])
    files = [folder / f"{i}.jpg" for i in range(number)]
    for i, file in enumerate(files):
        Image.fromarray(np.roll(rgb, 20 * i, 1)).save(file, quality=92)
    labels = np.zeros((number, 6), np.float32)
    labels[:, 0] = 1
    names = tuple(file.stem for file in files)
    classes = ("cat", "cow", "dog", "horse", "person", "sheep")
    masks, values = (None,) * number, tuple(range(7))
    return Photographs(classes, names, labels, images=files, masks=masks, mask_values=values)


def rows() -> Iterator[Row]:
    """All lines of the table, each as soon as it is measured."""
    keep_freed_memory()  # as the training command does; the peers gain by it too
    yield from refinement_rows()
    yield batch_row()
    yield crf_row()
    yield information_row(9, 0.015)
    yield information_row(0, 0.150)
    yield region_row()
    yield from training_rows()
    if torch.cuda.is_available():
        yield batch_row(device=torch.device("cuda"))
        yield from training_rows(device=torch.device("cuda"))
    with tempfile.TemporaryDirectory() as folder:
        yield throughput_row(Path(folder))
        yield evaluation_row()
        yield from app_rows(Path(folder))


def markdown(table: pd.DataFrame, grown: pd.DataFrame, seconds: float) -> str:
    """Both tables, as benchmark.md has them."""
    machine = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    head = (
        f"# Benchmark\n\n`python -m analysis.benchmark`, {seconds:.0f} s on {machine}; medians of alternating pairs.\n"
    )
    return "\n".join([head, lines(table), "\nHow the refinement's cost grows:\n", lines(grown), ""])


def figure(grown: pd.DataFrame) -> object:
    """Milliseconds over each thing that grows; a straight line is what should be paid."""
    kinds = list(grown["varied"].unique())
    whole = make_subplots(1, len(kinds), subplot_titles=kinds, horizontal_spacing=0.05)
    for column, kind in enumerate(kinds, 1):
        part = grown[grown["varied"] == kind]
        x = part["value"] ** 2 if kind.startswith("side") else part["value"]
        whole.add_scatter(x=x, y=part["ms"], mode="lines+markers", row=1, col=column)
        whole.update_xaxes(title="pixels" if kind.startswith("side") else None, rangemode="tozero", row=1, col=column)
    whole.update_yaxes(rangemode="tozero")
    whole.update_yaxes(title="ms", col=1)
    whole.update_layout(showlegend=False, height=340, width=1300, title="Cost of the refinement")
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """The command; prints the table and writes it."""
    parser = argparse.ArgumentParser(prog="python -m analysis.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/results"), metavar="DIR")
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    begun, measured = time.perf_counter(), []
    for row in rows():
        measured.append(row)
        values = f"{row.ours:>9.3g}{row.theirs:>9.3g} {row.unit:<9}{row.ratio:>8.3g}"
        met = ("met" if row.met else "MISSED") if row.target else ""
        print(f"{row.work:<50}{row.peer:<34}{values}  {row.target:<24}{met}", flush=True)
    table, grown = pd.DataFrame([asdict(row) for row in measured]), growth()
    text = markdown(table, grown, time.perf_counter() - begun)
    print(text.split("grows:")[1])
    table.to_csv(out / "benchmark.csv", index=False)
    (out / "benchmark.md").write_text(text)
    figure(grown).write_html(out / "benchmark.html", include_plotlyjs="cdn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
