"""How fast the method is beside its peers: `python -m analysis.benchmark [--out DIR]`.

Writes benchmark.csv, benchmark.md and benchmark.html into runs/results.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import httpx
import numpy as np
import pandas as pd
import psutil
import torch
from gradio_client import Client, handle_file
from PIL import Image

from analysis import runs
from analysis.measuring import Row, alternating, at_least, at_most
from analysis.network_speed import evaluation_row, throughput_row, training_rows
from analysis.peers import region_loss_by_unfold
from analysis.refinement_speed import batch_row, crf_row, figure, growth, refinement_rows, scene
from analysis.tables import lines
from analysis.timing import PHOTOGRAPH, ROOT, SIZE, serve
from wsss import UserError
from wsss.allocator import keep_freed_memory
from wsss.data.item import Photographs
from wsss.data.picture import read_rgb
from wsss.disk import make_folder
from wsss.exits import Unwritable, report
from wsss.losses import region_loss
from wsss.presets import animals
from wsss.shape_cue import sample_offsets, self_information


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


def turned(folder: Path, number: int) -> Photographs:
    """`number` JPEG files of a photograph's size in `folder`, each a turn of one picture."""
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


def app_rows(folder: Path, pictures: int = 200) -> Iterator[Row]:
    """The page's start, and its memory after photographs in `folder` were segmented."""
    begun = time.perf_counter()
    process, address = serve(ROOT / "checkpoints" / "animals")
    try:
        httpx.get(address).raise_for_status()
        seconds = time.perf_counter() - begun
        yield at_most("app: import to first page", seconds, "limit", 12, 1)
        visitor = Client(address, verbose=False)
        for file in turned(folder, pictures).images:
            visitor.predict(handle_file(str(file)), 0, api_name="/segment")
        memory = psutil.Process(process.pid).memory_info().rss
        yield at_most(f"app: memory after {pictures} photographs", memory, "limit", 1.5e9, 1, "MB")
    finally:
        process.terminate()
        process.wait()


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
        yield throughput_row(turned(Path(folder), animals().batch))
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


def main(argv: Sequence[str] | None = None) -> int:
    """The command; prints the table and writes it."""
    parser = argparse.ArgumentParser(prog="python -m analysis.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=runs.root() / "results", metavar="DIR", help="%(default)s")
    out = parser.parse_args(argv).out
    try:
        make_folder(out)  # said now, not after minutes
    except (UserError, Unwritable) as error:
        return report(error)
    begun, measured = time.perf_counter(), []
    for row in rows():
        measured.append(row)
        values = f"{row.ours:>9.3g}{row.theirs:>9.3g} {row.unit:<9}{row.ratio:>8.3g}"
        met = ("met" if row.met else "MISSED") if row.target else ""
        print(f"{row.work:<66} {row.peer:<34}{values}  {row.target:<26}{met}", flush=True)
    table, grown = pd.DataFrame([asdict(row) for row in measured]), growth()
    text = markdown(table, grown, time.perf_counter() - begun)
    print(f"\n{lines(grown)}\n")
    table.to_csv(out / "benchmark.csv", index=False)
    (out / "benchmark.md").write_text(text)
    figure(grown).write_html(out / "benchmark.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
