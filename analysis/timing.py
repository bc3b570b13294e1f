"""How fast the page answers and training steps: `python -m analysis.timing [--checkpoint DIR]`.

Starts the app in a process of its own, asks it over HTTP as a browser does, and prints each figure beside its target.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from gradio_client import Client, handle_file
from PIL import Image

from wsss.config import animals
from wsss.data.item import read_rgb
from wsss.data.shapes import Shapes
from wsss.distributed import Group
from wsss.objective import Schedule
from wsss.precision import fastest_precision
from wsss.train import loader, start, take_step

ROOT = Path(__file__).parent.parent
PHOTOGRAPH = ROOT / "analysis" / "examples" / "chelsea.jpg"
SIZE = (375, 500)
PRESENT = ["cat", "dog", "person"]


def serve(checkpoint: Path) -> tuple[subprocess.Popen, str]:
    """Start the app on a free port. Returns its process and address. Raises RuntimeError when it ends instead."""
    command = [sys.executable, "-u", "app.py", "--checkpoint", str(checkpoint)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in process.stdout:
        said.append(line)
        if address := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, address[0]
    raise RuntimeError("the app did not start: " + "".join(said))


def quantiles(ask: Callable[[int], object], moves: int) -> tuple[float, float]:
    """Median and 95th percentile in seconds of `moves` calls, each with another number."""
    seconds = []
    for move in range(moves):
        begun = time.perf_counter()
        ask(move)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds)), float(np.quantile(seconds, 0.95))


def upload(client: Client, checkpoint: str, photograph: object) -> None:
    """Give a photograph and wait for its first picture."""
    client.predict(checkpoint, photograph, api_name="/photograph")
    client.predict(checkpoint, PRESENT, 0.55, 0, False, api_name="/mask")


def page_rows(checkpoint: Path, moves: int) -> list[tuple[str, str, str]]:
    """Name, figure and target of each question that the page is asked."""
    process, address = serve(checkpoint)
    name = checkpoint.name
    try:
        client = Client(address, verbose=False)
        with tempfile.TemporaryDirectory() as folder:
            shown = []
            for i in range(3):  # three different photographs, so that none is remembered
                path = Path(folder, f"{i}.jpg")
                rgb = cv2.resize(read_rgb(PHOTOGRAPH), SIZE[::-1])
                Image.fromarray(np.roll(rgb, 10 * i, 1)).save(path)
                shown.append(handle_file(str(path)))
            first = quantiles(lambda i: upload(client, name, shown[i]), 3)

        def pseudo(alpha: float = 0.8, steps: int = 10, cutoff: float = 0.6) -> None:
            settings = alpha, steps, cutoff, 0.7, 0.2, [1, 2, 4, 8, 12, 24], "cat"
            client.predict(name, PRESENT, *settings, api_name="/pseudo")

        def mask(opacity: float) -> None:
            client.predict(name, PRESENT, opacity, 0, False, api_name="/mask")

        def cues(radius: int) -> None:
            client.predict(name, PRESENT, radius, 1, 0.5, 9, 3, 0.5, False, 0, api_name="/shape_cues")

        pseudo()
        cues(7)
        measured = {
            "T slider": (quantiles(lambda i: pseudo(steps=i % 30), moves), 0.1),
            "threshold slider": (quantiles(lambda i: pseudo(cutoff=i % 20 / 20), moves), 0.1),
            "opacity slider": (quantiles(lambda i: mask(i % 20 / 20), moves), 0.1),
            "self-information sliders": (quantiles(lambda i: cues(1 + i % 16), moves), 0.2),
            "alpha slider": (quantiles(lambda i: pseudo(alpha=i / moves), moves), 0.2),
        }
        rows = [("upload to first result", f"{first[0]:.2f} s (worst of 3: {first[1]:.2f})", "2.5 s")]
        rows += [(name, f"{a:.3f} s (p95 {b:.3f})", f"{target} s") for name, ((a, b), target) in measured.items()]
        return [
            *rows,
            ("memory of the server", f"{psutil.Process(process.pid).memory_info().rss / 1e9:.2f} GB", "2 GB"),
        ]
    finally:
        process.terminate()
        process.wait()


def training_row(steps: int) -> tuple[str, str, str]:
    """Images a second of the `animals` preset with all its losses, on drawn pictures of a photograph's size."""
    alone = Group(0, 1, torch.device("cpu"))
    config = replace(animals(), precision=fastest_precision(alone.device))
    torch.set_flush_denormal(True)
    source = Shapes(config.batch, 0, (256, 341))
    learner = start(config, len(source.classes) + 1, alone.device, pretrained=True)
    learner.network.train()
    schedule, begun = Schedule(config, 100), 0.0
    for step in range(steps + 1):
        if step == 1:  # the first is slower, it allocates
            begun = time.perf_counter()
        view = next(loader(source, config, step, alone))
        take_step(learner.network, learner, view, config, schedule, schedule.warmup + step, source.names, alone.device)
    speed = steps * config.batch / (time.perf_counter() - begun)
    return "training `animals`, all losses", f"{speed:.1f} images/s", "8 images/s"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; prints the table."""
    parser = argparse.ArgumentParser(prog="python -m analysis.timing", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "animals", metavar="DIR")
    parser.add_argument("--moves", type=int, default=50, help="times that each slider is moved")
    parser.add_argument("--steps", type=int, default=8, help="training steps")
    arguments = parser.parse_args(argv)
    print(f"{SIZE[1]}x{SIZE[0]} photograph, {torch.get_num_threads()} threads")
    for row in [*page_rows(arguments.checkpoint.resolve(), arguments.moves), training_row(arguments.steps)]:
        print("{:<32}{:<32}{:>10}".format(*row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
