"""Wrong settings: exit code 2, the setting and the reason, and nothing is created. Row G1 of the reliability table."""

import time
from contextlib import suppress

import pytest
from reliability import measured

from wsss import UserError, train
from wsss.config import from_dict
from wsss.json_file import read_json

pytestmark = pytest.mark.reliability

FLAGS = {  # and a word that the sentence must hold
    ("--learning-rat", "1"): "--learning-rat",
    ("--alfa", "0.5"): "did you mean '--alpha'",
    ("--alph", "0.5"): "did you mean '--alpha'",
    ("--lr", "abc"): "lr must be a finite number",
    ("--lr", "nan"): "lr must be a finite number",
    ("--lr", "inf"): "lr must be a finite number",
    ("--lr", "1e400"): "lr must be a finite number",
    ("--lr=-1",): "lr must lie between",
    ("--lr", "0"): "lr must lie between",
    ("--lr", ""): "lr must be a finite number",
    ("--epochs", "0"): "epochs must lie between",
    ("--epochs=-1",): "epochs must lie between",
    ("--epochs", "1.5"): "epochs must be a whole number",
    ("--epochs", "1000000000"): "epochs must lie between",
    ("--epochs", "9" * 5000): "epochs must be a whole number",
    ("--batch", "0"): "batch must lie between",
    ("--workers=-1",): "workers must lie between",
    ("--workers", "1000"): "workers must lie between",
    ("--seed", str(2**64)): "seed must lie between",
    ("--cache", "yes"): "cache must be true or false",
    ("--object-cutoff", "5"): "object_cutoff must lie between",
    ("--output-stride", "7"): "output_stride must be 8 or 16",
    ("--info-patch", "2"): "info_patch must be odd",
    ("--shape-cue", "off"): "shape_cue must be one of",
    ("--dataset", "<b>"): "dataset must be one of",
    ("--lr", "0.1", "--lr", "0.2"): "lr is given twice",
    ("--encoder", "\n"): "encoder must be at most",
    ("--encoder", "x" * 2000): "encoder must be at most",
    ("--device", "cuda:99"): "device 'cuda:99' cannot be used",
    ("--data", "/etc/passwd"): "",
}

FILES = {
    b"": "is empty",
    b"[]": "must hold an object",
    b"null": "must hold an object",
    b"{": "cannot be read as JSON",
    b'{"lr": NaN}': "NaN, which is not a finite number",
    b'{"lr": -Infinity}': "-Infinity, which is not a finite number",
    b'{"lr": 1e400}': "1e400, which is not a finite number",
    b'{"lr": 0.1, "lr": 0.2}': "'lr' stands there twice",
    b"{'lr': 1}": "cannot be read as JSON",
    b'{"lr": "\xe9"}': "cannot be read as JSON",
    b"\t- lr: 1": "cannot be read as JSON",
    b"[" * 100_000: "nested too deeply",
    b'{"x": "' + b"a" * 2**20 + b'"}': "is over 1 MiB",
    b"a: &a [1]\nb: *a": "cannot be read as JSON",
    b"!!python/object/apply:os.system [id]": "cannot be read as JSON",
}

VALUES = [
    {"lr": "1e-3"},
    {"epochs": True},
    {"alpha": 10**400},
    {"lr": None},
    {"cache": "no"},
    {5: 1},
    {"encoder": ["x"]},
]


def test_a_wrong_setting_is_refused_with_its_name_and_nothing_is_created(tmp_path, capsys):
    right, slowest = [], 0.0
    for flags, words in FLAGS.items():
        out, begun = tmp_path / "run", time.process_time()
        preset = ["--preset", "animals" if "--data" in flags else "tiny"]
        try:
            code = train.main([*preset, "--out", str(out), *flags])
        except SystemExit as ended:
            code = ended.code
        slowest = max(slowest, time.process_time() - begun)
        said = capsys.readouterr().err
        fine = code == 2 and words in said and "Traceback" not in said and len(said.splitlines()[-1]) < 400
        right.append(fine and not (out / "run.json").exists() and not (out / "states").exists())
        assert right[-1], (flags, code, said[-600:])
    for content, words in FILES.items():
        path = tmp_path / "config.json"
        path.write_bytes(content)
        with pytest.raises(UserError) as refused:
            read_json(path)
        right.append(words in str(refused.value) and "config.json" in str(refused.value))
        assert right[-1], (content[:40], str(refused.value))
    seen = f"{sum(right)}/{len(right)} refused, slowest {slowest:.2f} s"
    measured("G1", seen, f"{len(right)}/{len(right)}, < 1 s each", all(right) and len(right) >= 40 and slowest < 1)


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_a_value_of_a_wrong_kind_is_refused_by_name(values):
    with pytest.raises(UserError, match=str(next(iter(values)))):
        from_dict(values)


def test_the_page_and_the_command_say_the_same(capsys):
    for flag, value, given in (("--epochs", 1.5, "1.5"), ("--alpha", 7, "7"), ("--lr", float("nan"), "nan")):
        name = flag.removeprefix("--")
        with pytest.raises(UserError) as page:
            from_dict({name: value})
        with suppress(SystemExit):
            train.main(["--preset", "tiny", flag, given])
        reason = str(page.value).rpartition(", got")[0]
        assert reason in capsys.readouterr().err
