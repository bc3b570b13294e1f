"""How fast the refinement (SPR) is beside PAMR as built and a dense CRF, and how its cost grows."""

from collections.abc import Iterator

import cv2
import pandas as pd
import torch
import torch.nn.functional as F
from plotly.subplots import make_subplots
from torch import Tensor

from analysis.measuring import CPU, Row, alternating, at_least, at_most, bandwidth, on, peak_bytes
from analysis.peers import pamr
from analysis.timing import PHOTOGRAPH, SIZE
from wsss.crf import crf
from wsss.data.picture import read_rgb
from wsss.refinement import DILATIONS, affinity, kernel, refine, spread


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
    mine, theirs = alternating(
        lambda: refine(image, *maps, present=present), lambda: pamr(image, maps[1], 10), min(3, pairs)
    )
    work = f"SPR, {size[1]}x{size[0]}, 3 of 21 classes, T = 10"
    yield at_least(work, mine, "PAMR as built, of all 21", theirs, least)
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

    mine, whole = alternating(new_alpha, ours, pairs)
    yield at_most("new alpha, kernels kept", mine, "full SPR", whole, 0.6)
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
    work = f"SPR, {batch} x {size}x{size}, 3 of {classes} classes, T = 10{on(device)}"
    return at_least(work, mine, "PAMR as built", theirs, 30 if device == CPU else 1)


def crf_row(pairs: int = 5) -> Row:
    """Beside the dense CRF on the same photograph and classes."""
    image, scores, probs, present = scene(1, 3, SIZE, 3)
    rgb = (255 * image[0]).byte().permute(1, 2, 0).contiguous().numpy()
    mine, theirs = alternating(
        lambda: refine(image, scores, probs, present=present), lambda: crf(rgb, probs[0].numpy(), steps=10), pairs
    )
    return at_least("SPR, the same photograph", mine, "pydensecrf, 10 iterations", theirs, 1)


def growth(pairs: int = 2) -> pd.DataFrame:
    """Time of SPR, also by pixel and present class, over image size, present classes, T, batch, and absent classes."""
    rows = []

    def add(varied: str, value: int, *, side: int, present: int = 3, steps: int = 10, batch: int = 1, classes: int = 3):
        image, scores, probs, there = scene(batch, classes, (side, side), present)
        seconds, _ = alternating(lambda: refine(image, scores, probs, present=there, steps=steps), lambda: None, pairs)
        rows.append((varied, value, 1e3 * seconds, 1e9 * seconds / (batch * present * side**2)))

    for side in (112, 224, 448, 1000):
        add("side in pixels", side, side=side)
    for present in (2, 5, 10, 21):
        add("present classes", present, side=224, present=present, classes=21)
    for steps in (0, 5, 10, 20):
        add("T", steps, side=448, steps=steps)
    for batch in (1, 2, 4, 16):
        add("batch", batch, side=112, batch=batch)
    for classes in (3, 7, 21):
        add("classes, 3 of them present", classes, side=224, classes=classes)
    return pd.DataFrame(rows, columns=["varied", "value", "ms", "ns per pixel and present class"])


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
