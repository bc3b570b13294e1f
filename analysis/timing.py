"""How fast the page answers and training steps: `python -m analysis.timing [--checkpoint DIR]`.

Starts the app in a process of its own, moves its sliders in headless Chromium, prints each figure beside its target.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from wsss import UserError, checkpoint
from wsss.allocator import keep_freed_memory
from wsss.data.picture import read_rgb
from wsss.data.shapes import Shapes
from wsss.distributed import Group
from wsss.exits import report
from wsss.loading import loader
from wsss.objective import Schedule
from wsss.precision import fastest_precision
from wsss.presets import animals
from wsss.step import take_step
from wsss.train import start

ROOT = Path(__file__).parent.parent
PHOTOGRAPH = ROOT / "analysis" / "examples" / "chelsea.jpg"
SIZE = (375, 500)
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]


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


_FIND = """
  const shown = element => element.offsetParent !== null;
  const slider = [...document.querySelectorAll(`input[aria-label="range slider for ${label}"]`)].find(shown);
  const block = [...document.querySelectorAll(".block")].filter(shown)
    .filter(block => [...block.querySelectorAll("label")].some(text => text.textContent.trim() === title)).at(-1);
  const picture = () => [...block.querySelectorAll("img")].at(-1);
"""
MOVE = f"""async ([label, title, value]) => {{{_FIND}
  const before = picture().src, begun = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event("input", {{bubbles: true}}));
  while (picture().src === before) {{
    if (performance.now() - begun > 1500) return null;
    await new Promise(requestAnimationFrame);
  }}
  await picture().decode();
  return (performance.now() - begun) / 1000;
}}"""
"""Moves a slider and waits for the next picture, in the browser's own clock; null where the same picture stays."""

DRAG = f"""async ([label, title, values]) => {{{_FIND}
  for (const value of values) {{
    slider.value = value;
    slider.dispatchEvent(new Event("input", {{bubbles: true}}));
    await new Promise(requestAnimationFrame);
  }}
  const ended = performance.now();
  let last = ended, before = picture().src;
  while (performance.now() - last < 1500) {{
    if (picture().src !== before) [last, before] = [performance.now(), picture().src];
    await new Promise(requestAnimationFrame);
  }}
  return (last - ended) / 1000;
}}"""
"""Drags a slider, one event a frame; the seconds from the last event to the last new picture."""


def moves(page: Page, label: str, title: str, values: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile in seconds from a slider's event to the new picture with that title.

    Moves that change no pixel count nothing. Raises RuntimeError when fewer than half of the moves change any.
    """
    seconds = [page.evaluate(MOVE, [label, title, value]) for value in values]
    seconds = [value for value in seconds if value is not None]
    if 2 * len(seconds) < len(values):
        raise RuntimeError(f"{label}: only {len(seconds)} of {len(values)} moves changed the picture")
    return float(np.median(seconds)), float(np.quantile(seconds, 0.95))


def upload(page: Page, path: Path) -> float:
    """Seconds from a photograph's upload to the mask over it. Raises TimeoutError after a minute."""
    with Image.open(path) as picture:
        shown = f"() => [...document.images].filter(image => image.naturalWidth === {picture.width}).length > 2"
    begun = time.perf_counter()
    page.set_input_files("input[type=file]", str(path))
    page.wait_for_function(shown, timeout=60_000)
    return time.perf_counter() - begun


def show(page: Page, tab: str, title: str) -> float:
    """Open a tab and wait for its picture; returns the seconds that this took."""
    begun = time.perf_counter()
    page.get_by_role("tab", name=tab, exact=True).click()
    page.locator(".block:visible", has=page.get_by_text(title, exact=True)).last.locator("img").last.wait_for()
    return time.perf_counter() - begun


def page_rows(checkpoint: Path, count: int) -> list[tuple[str, str, str]]:
    """Name, figure and target of what the page does in Chromium."""
    process, address = serve(checkpoint)
    try:
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = chromium.new_page(viewport={"width": 1440, "height": 900})
            page.goto(address)
            page.locator(".js-plotly-plot .bars").first.wait_for(timeout=60_000)  # of the example at the start
            first = [upload(page, path) for path in _photographs(Path(folder))]
            rows = [
                (
                    "upload to first picture",
                    f"{np.median(first):.2f} s (worst of {len(first)}: {max(first):.2f})",
                    "2.5 s",
                )
            ]
            unit = np.linspace(0.02, 0.98, count)
            for tab, label, title, values, target in (
                ("Inspect", "opacity", "Mask: click a pixel", unit, 0.1),
                ("Refinement", "T", "Pseudo mask: click a pixel", np.arange(count) % 30 + 1, 0.1),
                ("Refinement", "threshold", "Pseudo mask: click a pixel", unit, 0.1),
                ("Refinement", "alpha", "Pseudo mask: click a pixel", unit, 0.2),
                ("Shape cues", "R1", "Self-information (Eq. 3)", np.arange(count) % 15 + 1, 0.2),
            ):
                show(page, tab, title)
                page.wait_for_timeout(2000)  # what follows the first picture
                median, high = moves(page, label, title, values.tolist())
                rows.append((f"{tab}: {label}", f"{median:.3f} s (p95 {high:.3f})", f"{target} s"))
            rows += _waiting_rows(page)
        return [
            *rows,
            ("memory of the server", f"{psutil.Process(process.pid).memory_info().rss / 1e9:.2f} GB", "2 GB"),
        ]
    finally:
        process.terminate()
        process.wait()


def _waiting_rows(page: Page) -> list[tuple[str, str, str]]:
    """What a visitor waits for: the end of a drag, the maps of a class, a sweep over alpha."""
    pseudo, maps, cells = (
        "Pseudo mask: click a pixel",
        "Methods by stages",
        "Click a cell to open it in Refinement",
    )
    show(page, "Refinement", pseudo)
    page.wait_for_timeout(2000)
    drag = page.evaluate(DRAG, ["T", pseudo, [step % 30 + 1 for step in range(120)]])
    cams = show(page, "CAMs", maps)  # of two methods, both from the same pass
    page.wait_for_timeout(1000)
    begun = time.perf_counter()
    first = show(page, "Sweep", cells)
    page.locator(".js-plotly-plot:visible").wait_for()
    sweep = time.perf_counter() - begun
    return [
        ("Refinement: drag of 120 events", f"{drag:.2f} s after the last", "0.5 s"),
        ("CAMs of three stages", f"{cams:.2f} s", "1.5 s"),
        ("Sweep: first of 11 cells", f"{first:.2f} s", "0.5 s"),
        ("Sweep: 11 cells and their curve", f"{sweep:.2f} s", "4 s"),
    ]


def _photographs(folder: Path) -> list[Path]:
    """Photographs of different sizes, so that each is new to the server and to the page."""
    rgb, paths = read_rgb(PHOTOGRAPH), []
    for extra in range(3):
        paths.append(folder / f"{extra}.jpg")
        Image.fromarray(cv2.resize(rgb, (SIZE[1] - extra, SIZE[0]))).save(paths[-1])
    return paths


def training_row(steps: int) -> tuple[str, str, str]:
    """Images a second of the `animals` preset with all its losses, on drawn pictures of a photograph's size."""
    alone = Group(0, 1, torch.device("cpu"))
    config = replace(animals(), precision=fastest_precision(alone.device))
    torch.set_flush_denormal(True)
    keep_freed_memory()
    source = Shapes(config.batch, 0, (256, 341))
    learner = start(config, len(source.classes) + 1, alone.device, pretrained=True)
    learner.network.train()
    schedule, begun = Schedule(config, 100), 0.0
    for step in range(steps + 1):
        if step == 1:  # the first is slower, it allocates
            begun = time.perf_counter()
        view = next(loader(source, config, step, alone))
        take_step(learner, view, config, schedule.at(schedule.warmup + step), alone)
    speed = steps * config.batch / (time.perf_counter() - begun)
    return "training `animals`, all losses", f"{speed:.1f} images/s", "8 images/s"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; prints the table."""
    parser = argparse.ArgumentParser(prog="python -m analysis.timing", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "animals", metavar="DIR")
    parser.add_argument("--moves", type=int, default=50, help="times that each slider is moved")
    parser.add_argument("--steps", type=int, default=8, help="training steps")
    arguments = parser.parse_args(argv)
    if min(arguments.moves, arguments.steps) < 1:
        parser.error("--moves and --steps must be at least 1")
    try:
        checkpoint.read_config(arguments.checkpoint)
    except UserError as error:
        return report(error)
    print(f"{SIZE[1]}x{SIZE[0]} photograph, {torch.get_num_threads()} threads")
    for row in [*page_rows(arguments.checkpoint.resolve(), arguments.moves), training_row(arguments.steps)]:
        print("{:<32}{:<32}{:>10}".format(*row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
