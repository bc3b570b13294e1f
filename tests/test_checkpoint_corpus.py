"""Files of weights that may be anything: rows C1 to C5 of the reliability table."""

import io
import json
import pickle  # to write the files that the package must refuse
import random
import resource
import struct
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reliability import Child, measured
from safetensors.torch import save
from test_pictures_fuzz import peak
from torch import Tensor

import wsss.weights
from analysis import upload
from analysis.library import Library
from analysis.predictor import Predictor
from analysis.upload import admit, convert
from wsss import UserError, checkpoint
from wsss.network import build
from wsss.presets import tiny
from wsss.weights import CODE, read_weights, require_fit

pytestmark = pytest.mark.reliability
CLASSES = ("disc", "star")
SMALL = replace(
    tiny(), encoder="test_efficientnet", encoder_weights="none", aspp_channels=8, decoder_channels=8, shape_channels=8
)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = build(SMALL, len(CLASSES) + 1, pretrained=False)
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def served(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "served"
    checkpoint.save(folder, weights, SMALL, CLASSES)
    return folder


def pt(content: object, **options) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


class Runs:
    """To be pickled: unpickling it would call `function`."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def repacked(archive: bytes, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with the content of its entries changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(out, "w", method) as after:
        for name in before.namelist():
            after.writestr(name, change(name, before.read(name)))
    return out.getvalue()


def raw_safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def abuses() -> dict[str, bytes]:
    """safetensors files whose headers lie."""
    one = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    return {
        "8 EB header": raw_safetensors({}, length=2**63 - 1),
        "header beyond file": raw_safetensors({}, length=1000),
        "overlap": raw_safetensors({f"t{i}": entry([1000], 0, 4000) for i in range(1000)}, b"\0" * 4000),
        "offset out of file": raw_safetensors({"a": entry([10], 0, 40)}, b"\0" * 8),
        "shape lies": raw_safetensors({"a": entry([10], 0, 8)}, b"\0" * 8),
        "overflow": raw_safetensors({"a": entry([2**32, 2**32], 0, 0)}),
        "hole": raw_safetensors({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"\0" * 12),
        "bad UTF-8": raw_safetensors(b'{"\xff": 1}'),
        "negative": raw_safetensors({"a": entry([-1], 0, 4)}, b"\0" * 4),
        "unknown dtype": raw_safetensors({"a": entry([1], 0, 4, "F12")}, b"\0" * 4),
        "named twice": raw_safetensors(b"{" + one + b"," + one + b"}", b"\0" * 4),
        "deep": raw_safetensors(b"[" * 100_000),
        "trailing bytes": raw_safetensors({"a": entry([1], 0, 4)}, b"\0" * 400),
    }


def with_code(marker: Path) -> dict[str, bytes]:
    """Files that would leave a marker if anything in them ran."""
    shell, python = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    runs = {"os.system": Runs(__import__("os").system, shell), "eval": Runs(eval, python), "exec": Runs(exec, python)}
    zipped = {f"{name}.pt": pt({"a": run}) for name, run in runs.items()}
    legacy = {f"{name} legacy.pt": pt({"a": run}, _use_new_zipfile_serialization=False) for name, run in runs.items()}
    labels = io.BytesIO()
    np.save(labels, np.array({"x": np.ones(3)}, dtype=object), allow_pickle=True)
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), script)
    return (
        zipped
        | legacy
        | {
            "raw pickle.pt": pickle.dumps(runs["os.system"]),
            "pickle protocol 5.pt": pickle.dumps(runs["eval"], protocol=5),
            "pickle named.safetensors": pickle.dumps(runs["exec"]),
            "module.pt": pt(torch.nn.Linear(2, 2)),
            "numpy.pt": pt({"a": np.ones(3)}),
            "bytearray.pt": pt({"a": Runs(bytearray, 10**12)}),
            "script.pt": script.getvalue(),
        }
    )


def broken(good: dict[str, bytes]) -> dict[str, bytes]:
    cut = {
        f"cut at {share} {name}": content[: len(content) * share // 100]
        for name, content in good.items()
        for share in (0, 1, 50, 99)
    }
    return cut | {
        "text.pt": b"hello",
        "page.safetensors": b"<!DOCTYPE html><title>404</title>",
        "pointer.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "labels.npy": b"\x93NUMPY\x01\x00" + b"\0" * 100,
    }


def misfits(weights: dict[str, Tensor]) -> dict[str, bytes]:
    """Whole files that are not this network's weights."""
    first, last = next(iter(weights)), next(n for n in reversed(weights) if weights[n].is_floating_point())
    nan = weights | {last: torch.full_like(weights[last], float("nan"))}
    stretched = torch.zeros(1).as_strided((10**5, 10**5), (0, 0))
    return {
        "nan.pt": pt(nan),
        "nan.safetensors": save(nan),
        "complex.pt": pt(weights | {last: weights[last].to(torch.complex64)}),
        "stretched.pt": pt(weights | {last: stretched}),
        "sparse.pt": pt(weights | {last: torch.eye(3).to_sparse()}),
        "more classes.safetensors": save(weights | {last: torch.zeros(7)}),
        "missing.safetensors": save({name: value for name, value in weights.items() if name != first}),
        "extra.safetensors": save(weights | {"stranger": torch.zeros(1)}),
        "whole numbers.safetensors": save(weights | {last: weights[last].long()}),
        "empty dict.pt": pt({}),
        "empty.safetensors": save({}),
        "list.pt": pt([torch.zeros(1)]),
        "tensor.pt": pt(torch.zeros(1)),
        "number.pt": pt({"a": 1}),
    }


def corpus(weights: dict[str, Tensor], marker: Path) -> list[tuple[str, bytes, str]]:
    """Names, contents, and a word of the refusal; "" for what must be taken."""
    plain = pt(weights)
    state = {"model": weights, "optimizer": {"lr": 0.1, "buffers": [torch.ones(2)]}, "rng": torch.get_rng_state()}
    taken = {
        "good.pt": plain,
        "good.safetensors": save(weights),
        "full.pt": pt(state),
        "parallel.pt": pt({f"module.{name}": value for name, value in weights.items()}),
        "half.pt": pt({name: value.half() if value.is_floating_point() else value for name, value in weights.items()}),
        "parameters.pt": pt({"state_dict": {n: torch.nn.Parameter(v, False) for n, v in weights.items()}}),
    }
    bomb = repacked(plain, lambda name, content: b"\0" * 2**26 if "/data/0" in name else content, zipfile.ZIP_DEFLATED)
    flipped = bytearray(plain)
    flipped[len(flipped) // 2] ^= 1
    groups = [
        (taken, ""),
        (with_code(marker), CODE),
        (broken({"x.pt": plain, "x.safetensors": save(weights)}), "broken|empty"),
        (abuses(), "broken"),
        ({"bomb.pt": bomb, "flipped.pt": bytes(flipped)}, "too large|broken"),
        (misfits(weights), "fit|too large|unknown objects"),
    ]
    return [(name, content, words) for files, words in groups for name, content in files.items()]


def judge(files: list[tuple[Path, str]], wanted: dict[str, Tensor], report: Path) -> int:
    """Read each; writes what came out wrong, the slowest, and how much memory they took at most."""
    read_weights(files[0][0])  # what torch loads at first is not the files' doing
    Path("/proc/self/clear_refs").write_text("5")
    before, wrong, slowest = peak(), [], 0.0
    for path, words in files:
        begun, said = time.process_time(), ""
        try:
            require_fit(wanted, read_weights(path), path)
        except UserError as error:
            said = str(error)
        slowest = max(slowest, time.process_time() - begun)
        fine = said == "" if not words else any(word in said for word in words.split("|"))
        if not fine or "weights_only" in said or "\n" in said:
            wrong.append(f"{path.name}: {said[-150:]}")
    report.write_text(json.dumps([wrong, slowest, peak() - before]))
    return 0


def test_each_kind_of_file_is_taken_or_refused_and_nothing_in_it_runs(weights, tmp_path):
    marker, report, files = tmp_path / "marker", tmp_path / "report", []
    for name, content, words in corpus(weights, marker):
        (tmp_path / name).write_bytes(content)
        files.append((tmp_path / name, words))
    child = Child(lambda: judge(files, weights, report), tmp_path / "log")
    assert child.wait(100) == 0, child.said()
    wrong, slowest, grown = json.loads(report.read_text())
    ran = ", something ran" if marker.exists() else ""
    seen = f"{len(files) - len(wrong)}/{len(files)} {wrong or ''}, slowest {slowest:.2f} s, {grown:+.0f} MB{ran}"
    bar = "all, nothing runs, < 2 s, <= +64 MB"
    measured("C1", seen, bar, not wrong and not ran and slowest < 2 and grown <= 64 and len(files) >= 50)


def test_what_was_refused_is_not_tried_again(weights, tmp_path, monkeypatch):
    calls, load = [], torch.load

    def spy(path, **options):
        calls.append((str(path), options.get("weights_only")))
        return load(path, **options)

    monkeypatch.setattr(wsss.weights.torch, "load", spy)
    files = corpus(weights, tmp_path / "marker")
    for name, content, _ in files:
        (tmp_path / name).write_bytes(content)
        with suppress(UserError):
            read_weights(tmp_path / name)
    code = {str(tmp_path / name) for name, _, words in files if words == CODE}
    opened = {path for path, _ in calls}
    twice, reached = len(calls) - len(opened), len(opened & code)
    safe = bool(calls) and all(weights_only is True for _, weights_only in calls)
    seen = f"{len(calls)} calls, {twice} twice, {reached} of {len(code)} with code"
    fine = safe and len(code) >= 10 and not twice and not reached
    measured("C2", seen, "0 twice, 0 of >= 10 with code, all weights_only=True", fine)


def test_every_flipped_bit_is_noticed(weights, served, tmp_path):
    chance, noticed = random.Random(0), 0
    description = (served / "config.json").read_text()
    stored, zipped = (served / "model.safetensors").read_bytes(), pt(weights)
    (tmp_path / "config.json").write_text(description)
    for number in range(200):
        content = bytearray(stored if number % 2 else zipped)
        at = chance.randrange(len(content))
        content[at] ^= 1 << chance.randrange(8)
        path = tmp_path / ("model.safetensors" if number % 2 else "model.pt")
        path.write_bytes(content)
        try:
            if number % 2:
                checkpoint.load(tmp_path)
            else:
                flipped = read_weights(path)
                noticed += flipped.keys() == weights.keys() and all(
                    torch.equal(flipped[name], weights[name]) for name in weights
                )  # in a time stamp or the padding, no weight is touched
        except UserError:
            noticed += 1
    measured("C3", f"{noticed}/200 refused or harmless", "200/200", noticed == 200)


RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def answer(predictor: Predictor) -> bytes:
    predictor._encodings._values.clear()  # ask the network itself
    return predictor.encode(RGB).probs.tobytes()


@pytest.mark.slow
def test_a_refused_checkpoint_leaves_the_served_one_as_it_is(weights, served, tmp_path):
    library = Library([served])
    expected, same, refused = answer(library["served"]), 0, 0
    files = corpus(weights, tmp_path / "marker")
    for name, content, words in files:
        (tmp_path / name).write_bytes(content)
        try:
            convert(tmp_path / name, tmp_path / "out" / name, served / "config.json")
            library.add_upload(name[:50], tmp_path / "out" / name)
        except UserError:
            refused += bool(words)
        same += answer(library["served"]) == expected
    others = {name: value + 0.01 if value.is_floating_point() else value for name, value in weights.items()}
    checkpoint.save(tmp_path / "other", others, SMALL, CLASSES)
    adding = threading.Thread(target=lambda: library.add_upload("other", tmp_path / "other"))
    adding.start()
    mixed = sum(answer(library["served"]) != expected for _ in range(20))
    adding.join()
    assert answer(library["other"]) != expected
    wanted = sum(bool(words) for *_, words in files)
    seen = f"{same}/{len(files)} identical, {refused}/{wanted} refused, {mixed}/20 mixed"
    measured("C4", seen, "all, all, 0", same == len(files) and refused == wanted and mixed == 0)


def test_bounds_are_checked_before_there_is_a_tensor(weights, tmp_path, monkeypatch):
    files = {f"{name}.safetensors": content for name, content in abuses().items()}
    plain = pt(weights)
    deflated = repacked(plain, lambda name, content: content, zipfile.ZIP_DEFLATED)
    lying = bytearray(plain)
    at = lying.rindex(b"PK\x01\x02")
    lying[at + 24 : at + 28] = struct.pack("<I", 2**31)  # the declared size of the last entry
    files |= {"deflated.pt": deflated, "lying.pt": bytes(lying)}

    def never(*given, **options):
        raise AssertionError("a tensor was made")

    monkeypatch.setattr(wsss.weights.torch, "load", never)
    monkeypatch.setattr(wsss.weights, "load_file", never)
    right = 0
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError):
            read_weights(tmp_path / name)
        right += 1
    measured("C5", f"{right}/{len(files)} before a tensor", "all", right == len(files))


def test_an_upload_that_takes_more_memory_than_it_may_is_refused_in_words(weights, served, tmp_path, monkeypatch):
    large = {
        name: value.repeat(40, *[1] * (value.ndim - 1)) if value.ndim else value for name, value in weights.items()
    }
    (tmp_path / "large.safetensors").write_bytes(save(large))
    monkeypatch.setattr(upload, "MOST_MEMORY", 2**20)
    argv = [str(path) for path in (tmp_path / "large.safetensors", tmp_path / "out", served / "config.json")]
    child = Child(lambda: upload.main(argv), tmp_path / "log")
    assert child.wait() == 2
    assert child.said().strip() == "large.safetensors: is too large: it takes more memory than an upload may"


def test_an_upload_that_finds_the_disk_full_says_so(weights, served, tmp_path):
    (tmp_path / "good.safetensors").write_bytes(save(weights))
    argv = [str(path) for path in (tmp_path / "good.safetensors", tmp_path / "out", served / "config.json")]

    def convert_on_a_full_disk() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        return upload.main(argv)

    child = Child(convert_on_a_full_disk, tmp_path / "log")
    assert child.wait() == 2
    assert "cannot be written" in child.said() and "too large: it takes" not in child.said()


def test_weights_whose_counters_are_no_whole_numbers_are_refused(weights, served, tmp_path):
    (tmp_path / "half.pt").write_bytes(pt({name: value.half() for name, value in weights.items()}))
    with pytest.raises(UserError, match="is missing|is torch"):
        convert(tmp_path / "half.pt", tmp_path / "out", served / "config.json")


@pytest.mark.slow
def test_an_upload_is_opened_by_a_process_of_its_own(weights, served, tmp_path):
    huge = {name: value * 1e30 if value.is_floating_point() else value for name, value in weights.items()}
    files = {"bad.pt": pt({"a": Runs(eval, "1")}), "good.safetensors": save(weights), "huge.safetensors": save(huge)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    library = Library([served])
    with pytest.raises(UserError, match="takes more than 0.5 s"):
        admit(tmp_path / "bad.pt", tmp_path / "refused", like=served, seconds=0.5)
    with ThreadPoolExecutor(2) as pool:
        bad, good, huge = (
            pool.submit(admit, tmp_path / name, tmp_path / into, like=served)
            for name, into in zip(files, ("refused", "mine", "refused-too"), strict=True)
        )
    with pytest.raises(UserError, match=CODE):
        bad.result()
    with pytest.raises(UserError, match="answers are not finite"):
        huge.result()
    library.add_upload("mine", good.result())
    assert (
        not (tmp_path / "refused-too").exists()
        and not (tmp_path / "refused").exists()
        and library.names == ["served", "mine"]
    )
    assert answer(library["mine"]) == answer(library["served"])
    with pytest.raises(UserError, match="already"):
        library.add_upload("mine", served)
