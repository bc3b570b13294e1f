"""Training is not lost: killed, starved, poisoned or locked out, it says so in words and goes on where it was.

Those named t1 to t14 are rows of the reliability table; `python -m pytest -m reliability` prints it.
"""

import copy
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from reliability import Child, measured, until
from safetensors.torch import load_file
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import wsss.data.faults
import wsss.data.source
import wsss.step
import wsss.train
import wsss.workers
from wsss import UserError, checkpoint, records, run
from wsss.data.item import fingerprint
from wsss.data.shapes import Shapes
from wsss.distributed import Group
from wsss.epoch import keep_best
from wsss.network import ShapeAwareNetwork
from wsss.presets import tiny
from wsss.state import keep_newest, newest_whole, save_state
from wsss.stopping import StopRequest
from wsss.train import main, start, take_step

pytestmark = [pytest.mark.reliability, pytest.mark.slow]

FLAGS = {
    **{"encoder": "test_efficientnet", "encoder_weights": "none", "aspp_channels": 8, "decoder_channels": 8},
    **{"shape_channels": 8, "info_radius": 2, "refine_steps": 2, "crop": 32, "batch": 4, "epochs": 3},
    **{"warmup_epochs": 1, "log_steps": 1, "save_steps": 2, "eval_epochs": 1, "previews": 0, "precision": "float32"},
}
"""A step of the real network, cut in width and input, takes some 20 ms; a run has 3 epochs of 3 steps."""
STEPS = 9
ROOT = Path(__file__).parent.parent
FEW = {"train": (12, 0), "val": (2, 1)}
TIMING = ("seconds", "images_per_second")


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """12 pictures to train on and 2 to validate with, here and in every forked process."""
    monkeypatch.setattr(wsss.data.source, "_DRAWN", FEW)


@pytest.fixture(autouse=True, scope="module")
def unsynced() -> Iterator[None]:
    """What a killed process has written stays in the page cache: only a power cut would need what `fsync` waits for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def one_thread():
    """Bit-identical sums need one order of adding, and forked processes have no pool of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(out: Path, *more: str) -> list[str]:
    flags = {f"--{name.replace('_', '-')}": str(value) for name, value in FLAGS.items()}
    kept = [text for flag, value in flags.items() if flag not in more for text in (flag, value)]
    return ["--preset", "tiny", *kept, "--out", str(out), *more]


def begin(out: Path, *more: str, change: Callable[[], None] = lambda: None, **environment: str) -> Child:
    """A training run in a process of its own; `change` is called in it before."""

    def body() -> int:
        change()
        return main(command(out, *more))

    return Child(body, out.with_name(f"{out.name}-{environment.get('RANK', '')}.log"), **environment)


def go_on(out: Path) -> int:
    return begin(out, *(["--resume"] if any(out.glob("states/step-*")) else [])).wait()


def slowly(seconds: float = 0.05) -> None:
    """Make each step take longer, in this process."""

    def slow_step(*arguments):
        time.sleep(seconds)
        return take_step(*arguments)

    wsss.train.take_step = slow_step


def held(free: Path) -> None:
    """Have the steps behind the first wait until the file is there, in this process."""

    def held_step(*arguments):
        if arguments[3].step:
            until(free.exists)
        return take_step(*arguments)

    wsss.train.take_step = held_step


def slowly_and_telling(heard: Path) -> None:
    """Make each step take a minute, and the file once a signal was remembered, in this process."""
    slowly(60)
    remember = StopRequest._remember

    def told(*given):
        try:
            remember(*given)
        finally:
            heard.touch()

    StopRequest._remember = told


@pytest.fixture(scope="module", autouse=True)
def whole(one_thread, tmp_path_factory) -> Path:
    """A run that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wsss.data.source, "_DRAWN", FEW)
        # Not in a process of its own: what is compiled at the first step, the forked processes inherit.
        assert main(command(out)) == 0
    return out


def rows(out: Path) -> list[dict]:
    """The lines of a run's log, without what a clock has measured."""
    return [{k: v for k, v in row.items() if k not in TIMING} for row in records.read(out / "metrics.jsonl")]


def differences(first: Path, second: Path, step: int = STEPS) -> list[str]:
    """What differs between the ends of two runs: weights, momentum, moving average, scaler, losses, scores."""
    found = []
    a, b = (out / "states" / f"step-{step:06d}" for out in (first, second))
    weights = [checkpoint.read_weights(folder, checkpoint.require_whole(folder)["sha256"]) for folder in (a, b)]
    states = [torch.load(folder / "training.pt", weights_only=True) for folder in (a, b)]
    if not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]):
        found.append("weights")
    found += [name for name in states[0] if repr_of(states[0][name]) != repr_of(states[1][name])]
    if rows(first) != rows(second):
        found.append("log")
    return found


def repr_of(value: object) -> object:
    """A value that is equal exactly where all tensors in it are."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        return {name: repr_of(inner) for name, inner in value.items()}
    return [repr_of(inner) for inner in value] if isinstance(value, list | tuple) else value


def rubbish(out: Path) -> list[Path]:
    return [*out.rglob(".tmp-*"), *out.rglob(".old-*")]


def test_t1_a_save_loop_killed_at_any_moment_leaves_a_whole_state(tmp_path):
    random, states, model = np.random.default_rng(1), tmp_path / "states", tmp_path / "model"
    tensors = {"weight": torch.rand(2 * 2**20)}  # 8 MiB

    def save_for_ever() -> int:
        for step in range(1, 10_000):
            checkpoint.save(states / f"step-{step:06d}", tensors, tiny(), ("a",))
            keep_newest(states, step, 2)
            checkpoint.save(model, tensors, tiny(), ("a",))
        return 0

    sound = swept = 0
    for _ in range(30):
        child = Child(save_for_ever, tmp_path / "log")
        until(lambda: (model / "config.json").exists())
        time.sleep(random.uniform(0, 0.2))
        child.send(signal.SIGKILL)
        child.wait()
        newest_whole(states)
        checkpoint.sweep(tmp_path), checkpoint.sweep(states)
        checkpoint.require_whole(model)
        sound, swept = sound + 1, swept + (not rubbish(tmp_path))
        shutil.rmtree(model)
    measured("T1", f"{sound}/30 readable, {swept}/30 without rubbish", "30/30, 30/30", sound == swept == 30)


def test_t2_a_run_killed_ten_times_ends_as_if_it_had_not_been(whole, tmp_path):
    random, out, kills = np.random.default_rng(2), tmp_path / "run", 0
    for _ in range(10):
        resume = ["--resume"] if any(out.glob("states/step-*")) else []
        child = begin(out, *resume, change=partial(slowly, 0.02))
        until(lambda child=child: f'"pid": {child.pid}' in text_of(out / "run.json") or child.is_over())
        time.sleep(random.uniform(0, 0.3))
        if not child.is_over():
            child.send(signal.SIGKILL)
            kills += 1
        assert child.wait() in (0, -signal.SIGKILL), child.said()
    assert go_on(out) == 0
    steps = [(row["step"], "miou" in row) for row in rows(out)]
    same = not differences(whole, out) and len(steps) == len(set(steps)) == STEPS + 3
    measured(
        "T2",
        f"{kills} kills, identical: {same}, lines once: {len(steps)}/{STEPS + 3}",
        ">= 5, identical",
        kills >= 5 and same,
    )


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def stop_at(k: int) -> None:
    """Have this process asked to stop during its step k."""

    def stopping_step(*arguments):
        if arguments[3].step + 1 == k:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(*arguments)

    wsss.train.take_step = stopping_step


def test_t3_stopped_at_any_step_with_any_workers_it_ends_the_same(whole, tmp_path):
    identical, mixed = [], {2: [(2, 2)], 4: [(0, 2)], 7: [(2, 0)]}  # within each epoch
    seldom = ["--save-steps", "100"]  # a stop saves by itself, as the end of an epoch does
    for k in range(1, STEPS + 1):
        for first, second in ((0, 0), *mixed.get(k, ())):
            out = tmp_path / f"{k}-{first}-{second}"
            code = begin(out, *seldom, "--workers", str(first), change=partial(stop_at, k)).wait()
            assert code == 143, code
            assert newest_whole(out / "states").name == f"step-{k:06d}"
            assert begin(out, "--resume", *seldom, "--workers", str(second)).wait() == 0
            identical.append(not differences(whole, out))
    seen = f"{sum(identical)}/{len(identical)} identical"
    measured("T3", seen, "all identical", len(identical) == STEPS + 3 and all(identical))


def test_t4_each_part_of_the_state_is_missed_when_it_is_left_out(tmp_path):
    noticed = []
    reference = tmp_path / "reference"
    assert begin(reference, change=with_scaler).wait() == 0
    stopped = tmp_path / "stopped"
    assert begin(stopped, change=lambda: (stop_at(5), with_scaler())).wait() == 143
    parts = ("nothing", "network", "optimiser", "average", "scaler", "schedule", "position", "random")
    for part in parts:
        out = tmp_path / part
        shutil.copytree(stopped, out)
        child = begin(out, "--resume", change=lambda part=part: (with_scaler(), forget(part)))
        assert child.wait() == 0, child.said()
        if bool(differences(reference, out)) == (part != "nothing"):
            noticed.append(part)
    seen = f"{len(noticed) - 1}/7 noticed"
    measured("T4", seen, "7/7, and nothing where nothing is left out", noticed == list(parts))


def with_scaler() -> None:
    """Scale gradients as float16 on a GPU does, so that the scaler has a state to lose."""

    def start_with_scaler(*arguments, **more):
        learner = start(*arguments, **more)
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        return learner

    wsss.train.start = start_with_scaler


def forget(part: str) -> None:
    """Resume without a part of the state, in this process."""
    load = wsss.train.load_state

    def load_without(folder, learner, source, own):
        fresh = copy.deepcopy(getattr(learner, part).state_dict())
        step = load(folder, learner, source, own)
        getattr(learner, part).load_state_dict(fresh)
        return step

    if part in ("network", "optimiser", "average", "scaler"):
        wsss.train.load_state = load_without
    elif part == "schedule":
        poly = wsss.train.set_poly_lr
        wsss.train.set_poly_lr = lambda optimiser, step, steps, power: poly(optimiser, step - 5, steps, power)
    elif part == "position":
        views = wsss.train.loader
        wsss.train.loader = lambda *arguments, skip: list_of(views(*arguments, skip=0), 3 - skip)
    elif part == "random":
        torch.manual_seed = lambda seed: None


def list_of(views, count: int):
    """A generator of the first `count` views."""
    for _, view in zip(range(count), views, strict=False):
        yield view


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 12 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(b"0" * size)
            except OSError:
                continue


def full_at(point: str, disk: Path) -> None:
    """Have the disk run full just before the second write of that kind, in this process."""
    module, name = {
        "weights": (checkpoint, "save_file"),
        "manifest": (checkpoint, "asdict"),
        "metrics": (records, "_json_line"),
        "export": (checkpoint, "save_file"),
        "log": (checkpoint, "save_file"),
    }[point]
    real, calls = getattr(module, name), []

    def filling(*arguments, **more):
        calls.append(0)
        exporting = point == "export" and arguments[1].parent.name.endswith("-model")
        if (len(calls) == 2 and point in ("weights", "manifest")) or exporting:
            fill(disk)
        if len(calls) == 2 and point == "metrics":
            log = disk / "run" / "metrics.jsonl"
            log.unlink()
            log.symlink_to("/dev/full")  # the last page of a file has room when the disk has none
        return real(*arguments, **more)

    setattr(module, name, filling)


def test_t5_a_full_disk_ends_the_run_in_words_and_spares_the_states(small_disk, tmp_path):
    right = []
    for point in ("weights", "manifest", "metrics", "export", "log"):
        out = small_disk / "run"
        log = tmp_path / f"{point}.log"
        body = partial(train_on_full_disk, point, small_disk, out)
        code = Child(body, log, stdout="/dev/full" if point == "log" else "").wait()
        said = log.read_text().splitlines()[-1]
        (small_disk / "filler").unlink(missing_ok=True)
        wanted = "standard output: cannot be written (No space" if point == "log" else f"{small_disk} is full"
        newest_whole(out / "states")
        ended = run.read(out)
        worded = said.startswith("error: ") and wanted in said
        right.append(code == ended["exit_code"] == 4 and worded and not rubbish(out))
        assert right[-1], (point, code, said, rubbish(out), ended["exit_code"])
        shutil.rmtree(out)
    measured("T5", f"{sum(right)}/5 points: exit 4, disk named, state whole, no rubbish", "5/5", all(right))


def train_on_full_disk(point: str, disk: Path, out: Path) -> int:
    full_at(point, disk)
    return main(command(out))


BREAKS = {
    "weights cut": lambda state: os.truncate(state / "model.safetensors", 1000),
    "weights flipped": lambda state: flip(state / "model.safetensors"),
    "training flipped": lambda state: flip(state / "training.pt"),
    "training gone": lambda state: (state / "training.pt").unlink(),
    "config cut": lambda state: os.truncate(state / "config.json", 100),
    "config gone": lambda state: (state / "config.json").unlink(),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_t6_a_broken_state_is_said_and_the_one_before_is_taken(whole, tmp_path, capsys):
    fell_back = []
    for name, spoil in BREAKS.items():
        out = tmp_path / name
        shutil.copytree(whole, out)
        spoil(out / "states" / f"step-{STEPS:06d}")
        code = main(command(out, "--resume"))
        said = "this state is broken, the one before is taken" in capsys.readouterr().err
        fell_back.append(code == 0 and said and not differences(whole, out))
    out = tmp_path / "all"
    shutil.copytree(whole, out)
    for state in (out / "states").iterdir():
        flip(state / "training.pt")
    code, words = main(command(out, "--resume")), capsys.readouterr().err
    refused = code == 3 and "none of the 2 states can be read" in words and len(rows(out)) == STEPS + 3
    seen = f"{sum(fell_back)}/6 fell back and said so; all broken: exit {code}"
    measured("T6", seen, "6/6; exit 3", all(fell_back) and refused)


class Poison(torch.autograd.Function):
    """Finite forward, NaN backward."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("nan")


POISONS = {
    "pixel": ("the pixel loss is nan", lambda terms: terms | {"pixel": terms["pixel"] * float("nan")}),
    "loss": (
        "the classification loss is nan",
        lambda terms: terms | {"classification": terms["classification"] / 0 * 0},
    ),
    "gradient": ("the gradient of the pixel loss is not finite", lambda t: t | {"pixel": Poison.apply(t["pixel"])}),
    "inf": ("the region loss is inf", lambda terms: terms | {"region": terms["region"] + float("inf")}),
}


def poisoned_at(step: int, kind: str, rank: str) -> None:
    """Spoil one process's loss at a step, in this process."""
    real = wsss.step.loss_terms

    def spoiled(*arguments):
        terms = real(*arguments)
        here = arguments[-1].step == step and os.environ.get("RANK", "0") == rank
        return POISONS[kind][1](terms) if here else terms

    wsss.step.loss_terms = spoiled


def pair(out: Path, *more: str, change: Callable[[], None] = lambda: None) -> list[Child]:
    """Two processes that train together, without torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
    return [begin(out, *more, change=change, **shared, **rank) for rank in ranks]


def test_t7_what_is_not_finite_stops_every_process_before_the_weights(tmp_path):
    stopped = []
    for world in (1, 2):
        for kind, (words, _) in POISONS.items():
            out = tmp_path / f"{kind}-{world}"
            change = partial(poisoned_at, 5, kind, str(world - 1))
            children = pair(out, change=change) if world == 2 else [begin(out, change=change)]
            codes = [child.wait() for child in children]
            said = [child.said() for child in children]
            newest = newest_whole(out / "states")
            weights = checkpoint.read_weights(newest, checkpoint.read_config(newest)["sha256"])
            finite = all(value.isfinite().all() for value in weights.values())
            named = all(f"{words} at step 6; the photographs were shapes-0-" in text for text in said)
            stopped.append(codes == [3] * world and named and finite and newest.name == "step-000004")
            assert stopped[-1], (kind, world, codes, newest, said)
    measured("T7", f"{sum(stopped)}/8 exit 3, step and photographs named, last state finite", "8/8", all(stopped))


TRAINING = (*range(12), *range(24, 36))


def devkit(root: Path) -> Path:
    """A VOC devkit of 36 pictures of 32x32 pixels, 24 of them to train on, with two of VOC's classes."""
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    table = ["image,aeroplane,bicycle"]
    for i in range(36):
        picture = Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        picture.save(root / "JPEGImages" / f"p{i:02}.jpg")
        mask = Image.fromarray(np.full((32, 32), 1 + i % 2, np.uint8))
        mask.save(root / "SegmentationClass" / f"p{i:02}.png")
        table.append(f"p{i:02},{(i + 1) % 2},{i % 2}")
    (root / "image_labels.csv").write_text("\n".join(table) + "\n")
    for split, numbers in (("train", TRAINING), ("val", range(12, 24))):
        text = "".join(f"p{i:02}\n" for i in numbers)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text)
    return root


def edited(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def pictures(root: Path, name: str) -> tuple[Path, Path]:
    return root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png"


def mask_as(root: Path, name: str, picture: Image.Image, form: str = "PNG") -> None:
    picture.save(pictures(root, name)[1], format=form)


LIST, VAL, TABLE = "ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt", "image_labels.csv"
INDEX = partial(Image.new, "L", (32, 32))
FAULTS = {
    "missing image": ("train.txt:1)", lambda r: pictures(r, "p00")[0].unlink()),
    "empty image": ("train.txt:2)", lambda r: pictures(r, "p01")[0].write_bytes(b"")),
    "broken image": ("train.txt:3)", lambda r: os.truncate(pictures(r, "p02")[0], 200)),
    "no picture": ("train.txt:4)", lambda r: pictures(r, "p03")[0].write_text("<html>")),
    "a pipe": ("train.txt:5)", lambda r: (pictures(r, "p04")[0].unlink(), os.mkfifo(pictures(r, "p04")[0]))),
    "link out": ("leads out of the data", lambda r: (pictures(r, "p05")[0].unlink(), link_out(pictures(r, "p05")[0]))),
    "line leaves the folder": (
        "train.txt:7: '../../etc/passwd'",
        lambda r: edited(r / LIST, "p06", "../../etc/passwd"),
    ),
    "absolute line": ("train.txt:8: '/etc/passwd'", lambda r: edited(r / LIST, "p07", "/etc/passwd")),
    "line twice": ("train.txt:9: p00 stands in line 1", lambda r: edited(r / LIST, "p08", "p00")),
    "line twice in another case": ("train.txt:10: P00 stands", lambda r: edited(r / LIST, "p09", "P00")),
    "no labels": ("train.txt:11: stranger has no labels", lambda r: edited(r / LIST, "p10", "stranger")),
    "no class": ("image_labels.csv:13: no class", lambda r: edited(r / TABLE, "p11,0,1", "p11,0,0")),
    "label neither 0 nor 1": ("image_labels.csv:14: the value", lambda r: edited(r / TABLE, "p12,1,0", "p12,1,yes")),
    "row twice": ("image_labels.csv:22: 'p20' stands in line 15", lambda r: edited(r / TABLE, "p13,0,1", "p20,1,0")),
    "missing mask": ("val.txt:3)", lambda r: pictures(r, "p14")[1].unlink()),
    "sizes differ": ("val.txt:4)", lambda r: mask_as(r, "p15", Image.new("L", (30, 32)))),
    "unknown value": ("val.txt:5)", lambda r: mask_as(r, "p16", INDEX(9))),
    "color mask": ("val.txt:6)", lambda r: mask_as(r, "p17", Image.new("RGB", (32, 32)))),
    "mask all void": ("val.txt:7)", lambda r: mask_as(r, "p18", INDEX(255))),
    "mask as JPEG": ("val.txt:8)", lambda r: mask_as(r, "p19", Image.new("L", (32, 32)), "JPEG")),
}


def link_out(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def test_t8_every_fault_of_a_data_set_is_listed_before_anything_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wsss.data.faults, "_SHOWN", 30)
    root, out = devkit(tmp_path / "data"), tmp_path / "run"
    for _, spoil in FAULTS.values():
        spoil(root)
    flags = ["--dataset", "voc", "--train-split", "train", "--data", str(root)]
    begun = time.perf_counter()
    code = main(command(out, *flags))
    seconds = time.perf_counter() - begun
    said = capsys.readouterr().err
    named = [name for name, (words, _) in FAULTS.items() if any(words in line for line in said.splitlines())]
    assert sorted(FAULTS) == sorted(named), (set(FAULTS) - set(named), said)
    nothing = not out.exists()
    children = pair(out, *flags, "--skip-bad", "--epochs", "1", "--save-steps", "100")
    codes = [child.wait() for child in children]
    assert codes == [0, 0], [child.said() for child in children]
    ended = run.read(out)
    counted = "left out for their faults: 12 of train, 8 of val" in children[0].said()
    seen = f"{len(named)}/20 named, exit {code}, {seconds:.1f} s, nothing made: {nothing}; 20 of 36 counted: {counted}"
    met = code == 2 and seconds < 5 and nothing and ended["skipped"] == 20 and counted
    measured("T8", seen, "20/20, exit 2, < 5 s", len(named) == 20 and met)


def misbehaving(how: str) -> None:
    """Have the process that loads photograph 7 die, hang or fail; one that hangs is waited for 2 seconds only."""
    if how == "hung":
        wsss.workers._LOADING = 2
    real = Shapes.rgb

    def rgb(self, index):
        if index == 7 and multiprocessing.parent_process() is not None:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "hung":
                time.sleep(600)
            raise ValueError("a bad day")
        return real(self, index)

    Shapes.rgb = rgb


def test_t9_a_process_that_loads_data_may_die_hang_or_fail(tmp_path):
    ended, times = [], []
    wanted = {
        "killed": (6, "a process that loads data died"),
        "hung": (6, "a process that loads data hangs"),
        "raising": (2, "shapes-0-7: cannot be loaded (ValueError: a bad day)"),
    }
    for how, (code, words) in wanted.items():
        out = tmp_path / how
        child = begin(out, "--workers", "2", change=partial(misbehaving, how))
        right = child.wait() == code and words in child.said() and "Traceback" not in child.said()
        times.append(time.monotonic() - child.begun)
        newest_whole(out / "states")
        ended.append(right and not child.family())
        assert ended[-1], (how, child.code, child.said(), child.family())
    seen = f"{sum(ended)}/3 in words, none left, slowest {max(times):.1f} s"
    measured("T9", seen, "3/3, <= 10 s", all(ended) and max(times) <= 10)


def test_t10_a_signal_ends_the_step_saves_and_leaves(whole, tmp_path):
    random, times, right = np.random.default_rng(10), [], []
    for i in range(10):
        out, number = tmp_path / str(i), (signal.SIGTERM, signal.SIGINT)[i % 2]
        child = begin(out, change=partial(slowly, 0.15))
        until(lambda out=out, child=child: (out / "states" / "step-000000").exists() or child.is_over())
        time.sleep(random.uniform(0, 0.5))
        child.send(number)
        sent = time.monotonic()
        code = child.wait()
        times.append(time.monotonic() - sent)
        ended = run.read(out)
        newest = newest_whole(out / "states").name
        stopped = code == 128 + number and ended["status"] == "stopped" and newest == f"step-{last_step(out):06d}"
        assert go_on(out) == 0
        right.append(stopped and not differences(whole, out))
        assert right[-1], (i, code, ended, newest, differences(whole, out))
    heard = tmp_path / "heard"
    child = begin(tmp_path / "twice", change=partial(slowly_and_telling, heard))
    until(lambda: rows_or_states(tmp_path / "twice"))
    child.send(signal.SIGTERM)
    until(heard.exists)  # two signals that nobody has looked at are one
    child.send(signal.SIGTERM)
    sent = time.monotonic()
    killed = child.wait() == -signal.SIGTERM and time.monotonic() - sent < 20
    seen = f"{sum(right)}/10 right code, state and result, slowest {max(times):.1f} s; second at once: {killed}"
    measured("T10", seen, "10/10, <= 5 s", all(right) and max(times) <= 5 and killed)


def last_step(out: Path) -> int:
    return max([row["step"] for row in rows(out)], default=0)


def rows_or_states(out: Path) -> bool:
    return (out / "metrics.jsonl").exists()


SLOW_COMMAND = """
import os, sys, time
import wsss.data.source, wsss.train
def slow_step(*arguments, step=wsss.train.take_step):
    time.sleep(float(os.environ["SECONDS_A_STEP"]))
    return step(*arguments)
wsss.data.source._DRAWN = {"train": (12, 0), "val": (2, 1)}
wsss.train.take_step = slow_step
sys.exit(wsss.train.main(sys.argv[1:]))
"""


def launched(out: Path, restarts: int = 0, seconds: float = 0.15) -> Child:
    """Two processes under the agent of torchrun, which is the child."""
    script = out.with_name("slow.py")
    script.write_text(SLOW_COMMAND)

    def agent() -> int:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=2,
            max_restarts=restarts,
            monitor_interval=0.1,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            run_id=out.name,
        )
        elastic_launch(config, sys.executable)(str(script), *command(out))
        return 0

    environment = {"SECONDS_A_STEP": str(seconds), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return Child(agent, out.with_name(f"{out.name}.log"), **environment)


def begun(out: Path, step: int, **options: float) -> tuple[Child, list[psutil.Process]]:
    """A launched run that has come to a step, and its two processes."""
    child = launched(out, **options)
    until(lambda: last_step(out) >= step or child.is_over(), 180)
    assert not child.is_over(), child.said()
    return child, psutil.Process(child.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def leader(out: Path) -> int:
    return run.read(out)["pid"]


def test_t11_torchrun_ends_restarts_and_stops_all_processes(tmp_path):
    alone = tmp_path / "alone"
    assert [child.wait() for child in pair(alone)] == [0, 0]

    dead, ranks = begun(tmp_path / "dead", 3, seconds=0.5)
    os.kill(leader(tmp_path / "dead"), signal.SIGKILL)
    killed = time.monotonic()
    code = dead.wait()
    seconds = time.monotonic() - killed
    ends = code != 0 and len(ranks) == 2 and not alive(ranks)

    again, _ = begun(tmp_path / "again", 5, restarts=1, seconds=0.5)
    os.kill(leader(tmp_path / "again"), signal.SIGKILL)
    restarted = again.wait() == 0 and not differences(alone, tmp_path / "again")
    assert restarted, again.said()[-3000:]

    asked, ranks = begun(tmp_path / "asked", 3, seconds=0.5)
    asked.send(signal.SIGTERM)
    asked.wait()
    ended = run.read(tmp_path / "asked")
    newest = newest_whole(tmp_path / "asked" / "states").name
    together = ended["status"] == "stopped" and newest == f"step-{last_step(tmp_path / 'asked'):06d}"
    assert together and not alive(ranks), (ended, newest, asked.said()[-3000:])

    orphaned, ranks = begun(tmp_path / "orphaned", 1, seconds=1)
    orphaned.send(signal.SIGKILL)
    gone = time.monotonic()
    orphaned.wait()
    until(lambda: not alive(ranks), 40)
    gone = time.monotonic() - gone
    seen = f"dead rank: all gone in {seconds:.1f} s; restart identical: {restarted}; agent killed: gone in {gone:.1f} s"
    bar = "<= 5 s, identical, one step, <= 30 s"
    measured("T11", seen, bar, ends and seconds <= 5 and restarted and together and gone <= 30)


def noting(folder: Path) -> None:
    """Write down which photographs each process's steps have seen, in this process."""
    path = folder / f"seen-{os.environ['RANK']}"

    def noting_step(*arguments):
        with path.open("a") as file:
            file.write(json.dumps([arguments[3].step, arguments[1].name]) + "\n")
        return take_step(*arguments)

    wsss.train.take_step = noting_step


def test_t12_two_processes_see_every_photograph_each_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(wsss.data.source, "_DRAWN", {"train": (37, 0), "val": (2, 1)})
    flags = ["--batch", "8", "--save-steps", "100"]  # 5 steps an epoch
    whole = tmp_path / "whole"
    assert [child.wait() for child in pair(whole, *flags, change=partial(noting, tmp_path))] == [0, 0]
    seen = [[json.loads(line) for line in (tmp_path / f"seen-{rank}").read_text().splitlines()] for rank in (0, 1)]
    equal = [step for step, _ in seen[0]] == [step for step, _ in seen[1]] == list(range(15))
    covered = [
        {name for rank in seen for step, names in rank if step // 5 == epoch for name in names}
        == set(Shapes(37, 0).names)
        for epoch in range(3)
    ]
    told = rows(whole)
    once = [row["step"] for row in told if "total" in row] == list(range(1, 16)) and told[-1]["miou"] > 0
    identical = []
    for stop in (5, 10):
        out = tmp_path / f"stop-{stop}"
        assert [child.wait() for child in pair(out, *flags, change=partial(stop_at, stop))] == [143, 143]
        assert [child.wait() for child in pair(out, *flags, "--resume")] == [0, 0]
        identical.append(not differences(whole, out, 15))
    figure = f"{sum(covered)}/3 epochs covered, equal steps: {equal}, {sum(identical)}/2 resumes identical"
    measured("T12", figure, "3/3, equal, 2/2", all(covered) and equal and once and all(identical))


def keeping(folder: Path) -> None:
    """Write down the average that each process has after its last step, in this process."""

    def keeping_step(*arguments):
        terms = take_step(*arguments)
        torch.save(arguments[0].average.state_dict(), folder / f"average-{os.environ['RANK']}.pt")
        return terms

    wsss.train.take_step = keeping_step


def test_every_process_has_the_average_that_is_saved(tmp_path):
    flags = ["--epochs", "1", "--warmup-epochs", "0"]
    assert [child.wait() for child in pair(tmp_path / "run", *flags, change=partial(keeping, tmp_path))] == [0, 0]
    first, second = (torch.load(tmp_path / f"average-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = torch.load(tmp_path / "run" / "states" / "step-000003" / "training.pt", weights_only=True)["average"]
    assert all(torch.equal(first[name], saved[name]) for name in first)


def standing_still() -> None:
    """Have batch norm, dropout and the shape cue do in training as in evaluation, in this process."""
    ShapeAwareNetwork.train = lambda network, mode=True: torch.nn.Module.train(network, False)


def test_two_processes_step_as_one_does_on_the_whole_batch(tmp_path):
    """Where no statistics are those of a share of the batch: the gradient is the mean over all of it."""
    flags = ["--epochs", "1", "--warmup-epochs", "1", "--keep-states", "9"]
    children = [begin(tmp_path / "one", *flags, change=standing_still)]
    children += pair(tmp_path / "two", *flags, change=standing_still)
    assert [child.wait() for child in children] == [0, 0, 0]
    first, one, two = (
        load_file(tmp_path / name / "model.safetensors")
        for name in ("one/states/step-000000", "one/states/step-000003", "two/states/step-000003")
    )
    trained = [name for name in first if not torch.equal(first[name], one[name])]
    assert len(trained) > 10
    for name in trained:
        torch.testing.assert_close(two[name] - first[name], one[name] - first[name], rtol=1e-3, atol=1e-6)


def test_t13_a_folder_belongs_to_one_run(whole, tmp_path, capsys):
    out = tmp_path / "run"
    first = begin(out, "--workers", "2", change=partial(held, tmp_path / "free"))
    until(lambda: last_step(out) >= 1)
    codes = [main(command(out)), main(command(out, "--resume"))]
    (tmp_path / "free").touch()
    said = capsys.readouterr().err
    refused = codes == [2, 2] and said.count(f"is in use by the run of process {first.pid}") == 2
    unharmed = first.wait() == 0 and not differences(whole, out)
    second = begin(tmp_path / "killed", "--workers", "2", change=partial(held, tmp_path / "never"))
    until(lambda: last_step(tmp_path / "killed") >= 1)
    second.send(signal.SIGKILL)
    second.wait()
    with run.owned(tmp_path / "killed"):
        free = True
    second.kill_all()
    seen = f"second refused with the owner: {refused}, first unharmed: {unharmed}, free after kill -9: {free}"
    measured("T13", seen, "all", refused and unharmed and free)


def test_t14_the_newest_states_and_the_best_are_kept(tmp_path, monkeypatch):
    flags = {name: value for name, value in FLAGS.items() if name != "previews"}
    config, source = replace(tiny(), **flags, keep_states=3), Shapes(12, 0)
    learner = start(config, 5, torch.device("cpu"), pretrained=False)
    states = tmp_path / "states"
    scores = np.random.default_rng(0).permutation(20) / 20
    for step in range(1, 21):
        save_state(states, learner, step, config, source)
        known = {"step": step, "val": {"miou": float(scores[step - 1])}}
        checkpoint.save(tmp_path / "model", learner.shipped.state_dict(), config, source.classes, known)
        keep_best(tmp_path / "model", tmp_path / "best", float(scores[step - 1]))
    one = folder_size(states / "step-000020")
    kept = sorted(path.name for path in states.iterdir()) == ["step-000018", "step-000019", "step-000020"]
    best = checkpoint.require_whole(tmp_path / "best")["step"] == int(scores.argmax()) + 1
    bound = folder_size(tmp_path) <= 5 * one * 1.01
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        save_state(states, learner, 21, config, source)
    goes_on = newest_whole(states).name == "step-000021"
    changed = fingerprint(source) != fingerprint(Shapes(11, 0))
    disk = folder_size(tmp_path) / one
    seen = f"3 newest: {kept}, best: {best}, disk {disk:.1f} states, goes on after a failing delete: {goes_on}"
    measured("T14", seen, "3 + best, <= 5 states", kept and best and bound and goes_on and changed)


def refuse(path, ignore_errors=False):
    if not ignore_errors:
        raise PermissionError("not yours")


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_state_of_other_data_is_refused(whole, tmp_path, capsys, monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setattr(wsss.data.source, "_DRAWN", {"train": (11, 0), "val": (2, 1)})
    assert main(command(tmp_path / "run", "--resume")) == 2
    assert "have changed since the run began" in capsys.readouterr().err


def test_a_run_file_tells_how_it_went(whole):
    told = run.read(whole)
    assert (told["status"], told["exit_code"], told["step"], told["steps"], told["epoch"]) == ("finished", 0, 9, 9, 3)
    assert told["argv"][1:3] == ["-m", "wsss.train"] and told["end"] > told["start"] and told["create_time"]


def test_tensorboard_is_asked_for_in_words_where_it_is_missing(tmp_path, capsys):
    code = main(command(tmp_path / "run", "--tensorboard", "true", "--epochs", "1"))
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        assert code == 2 and "pip install tensorboard" in capsys.readouterr().err and not (tmp_path / "run").exists()
    else:
        assert code == 0 and any((tmp_path / "run" / "tensorboard").iterdir())


def test_an_unwritable_folder_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(command(tmp_path / "file")) == 2
    assert "is a file, the run needs a folder" in capsys.readouterr().err
    assert main(command(Path("/proc/run"))) == 4
    assert "/proc/run: cannot be written on the disk at /proc" in capsys.readouterr().err


ALONE = Group(0, 1, torch.device("cpu"))


def test_a_group_of_one_agrees_with_itself():
    assert ALONE.maximum(15) == 15 and ALONE.gathered("") == [] and ALONE.gathered("a") == ["a"]


def test_preflight_needs_a_photograph_that_is_left(tmp_path):
    root = devkit(tmp_path / "data")
    for i in TRAINING:
        pictures(root, f"p{i:02}")[0].unlink()
    with pytest.raises(UserError, match="no photograph of the split train is left"):
        from wsss.preflight import require_sound_splits, survey

        require_sound_splits([survey("voc", root, "train")], skip_bad=True)
