"""Run folders as the page sees them: what the files and the living processes say, and nothing else.

A training run is a folder under `root()` with run.json, metrics.jsonl, states/, model/, best/, previews/ (of
`wsss.train`), and log.txt and job.json where the page has started it; an evaluation is one under `evaluations/` with
report.json. Nothing is known but from these, so a page that was reloaded or started again sees the same.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import wsss.run
from analysis import warden
from analysis.run_files import metrics, stamp_of
from wsss import UserError

REPOSITORY = Path(__file__).parent.parent
LOG, REPORT, EVALUATIONS = "log.txt", "report.json", "evaluations"

ALIVE = ("starting", "running", "ending", "stopping")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_EPOCH = re.compile(r"epoch_(\d+)")
_CLOCK_ERROR = 2.0  # seconds by which the system's idea of a process's start may move


class Found(NamedTuple):
    """What is known of a run or an evaluation."""

    folder: Path
    status: str  # starting, running, ending, stopping, finished, stopped, failed, killed, or unknown
    code: int | None  # exit code, -n where signal n killed it
    error: str | None
    device: str | None
    start: float | None
    end: float | None
    run: dict[str, Any]  # run.json, of the trainer
    job: dict[str, Any]  # job.json, of the page's warden

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_alive(self) -> bool:
        return self.status in ALIVE

    @property
    def argv(self) -> list[str]:
        """The command's words, as far as they are known."""
        words = self.run.get("argv") or self.job.get("argv") or []
        return [str(word) for word in words] if isinstance(words, list) else []


def root() -> Path:
    """The folder of all runs: WSSS_RUNS, or runs/ of the repository."""
    return Path(os.environ.get("WSSS_RUNS", REPOSITORY / "runs")).absolute()


def folder_of(name: object, *, evaluation: bool = False) -> Path:
    """The folder of a run or an evaluation of that name; it need not exist. Raises UserError for a bad name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or (name == EVALUATIONS and not evaluation):
        raise UserError(
            f"a run's name has 1 to 64 letters, digits, dots, dashes and underscores, got {str(name)[:80]!r}"
        )
    folder = (root() / EVALUATIONS if evaluation else root()) / name
    if folder.is_symlink():
        raise UserError(f"{name}: is a link, not a folder of its own")
    return folder


def known(name: object, *, evaluation: bool = False) -> Found:
    """A run or an evaluation that is there. Raises UserError when there is none of that name."""
    folder = folder_of(name, evaluation=evaluation)
    if not is_run(folder):
        raise UserError(f"there is no {'evaluation' if evaluation else 'run'} {name!r} any more")
    return look(folder)


def is_run(folder: Path) -> bool:
    """Whether a folder holds what a run leaves."""
    return not folder.is_symlink() and any(
        (folder / name).exists() for name in (wsss.run.FILE, warden.FILE, "metrics.jsonl", REPORT)
    )


def found_runs() -> list[Found]:
    """All training runs, the newest first."""
    return _found(root())


def found_evaluations() -> list[Found]:
    """All evaluations, the newest first."""
    return _found(root() / EVALUATIONS)


def _found(parent: Path) -> list[Found]:
    folders = [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    names = (folder for folder in folders if _NAME.fullmatch(folder.name) and is_run(folder))
    return sorted(map(look, names), key=lambda found: found.start or 0, reverse=True)


def look(folder: Path) -> Found:
    """The state of a run, from its files and from the processes that they name."""
    run, job = wsss.run.read(folder) or {}, _read(folder / warden.FILE)
    keeper = living_warden(job, folder)
    over = job.get("end") or (None if keeper else job.get("stop"))
    if over and _number(run.get("start")) > _number(over):
        job = {}  # a terminal has resumed the run since
    # A resumed run that ends before it owns the folder leaves the run.json of the part before.
    run_of_job = {} if run and job and _number(run.get("start")) < _number(job.get("start")) else run
    status, code, error = _ended(run_of_job, job)
    if keeper or living_trainer(run):
        status, code, error = _alive(run_of_job, job, folder), None, None
    return Found(
        folder,
        status,
        code,
        error,
        job.get("device") or run.get("device"),
        _number(job.get("start")) or _number(run.get("start")) or _changed(folder),
        _number(run_of_job.get("end")) or _number(job.get("end")) or None,
        run,
        job,
    )


def _alive(run: dict[str, Any], job: dict[str, Any], folder: Path) -> str:
    """Status of what lives; `run` is run.json where this job has written it."""
    if job.get("stop") or asked_to_stop(folder, run):
        return "stopping"
    if run.get("status") == "running" or job.get("kind") == "evaluation":
        return "running"
    return "ending" if run else "starting"


def _ended(run: dict[str, Any], job: dict[str, Any]) -> tuple[str, int | None, str | None]:
    """Status, exit code and sentence of what no longer lives."""
    status, code = run.get("status"), run.get("exit_code")
    if status in ("finished", "stopped", "failed"):
        return status, code, run.get("error")
    if not run and not job:
        return "unknown", None, None
    code = job.get("exit_code")
    if job.get("stop"):
        return "stopped", code, "it was stopped before it could save" if code and code < 0 else None
    host = (run or job).get("host")
    if code is None and host not in (None, socket.gethostname()):  # its processes cannot be seen from here
        return "unknown", None, f"it was started on another machine, {host}"
    if code is None:
        return "killed", None, "its process is gone and has not said how it ended"
    if code == 0:
        return "finished", 0, None
    return ("killed", code, f"signal {-code} ended it") if code < 0 else ("failed", code, None)


def living_warden(job: dict[str, Any], folder: Path) -> psutil.Process | None:
    """The living warden of a job; None where another program has its process id by now."""
    process = _process(job)
    with suppress(psutil.Error, ProcessLookupError):
        words = process.cmdline() if process is not None else []
        if "analysis.warden" in words and str(folder.absolute()) in words and os.getpgid(process.pid) == process.pid:
            return process
    return None


def living_trainer(run: dict[str, Any]) -> psutil.Process | None:
    """The living process that run.json names; None where another program has its process id by now."""
    return _process(run) if run.get("status") == "running" else None


def _process(content: dict[str, Any]) -> psutil.Process | None:
    pid, created = content.get("pid"), _number(content.get("create_time"))
    if type(pid) is not int or pid <= 1 or content.get("host") != socket.gethostname():
        return None
    with suppress(psutil.Error, ValueError, OverflowError):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < _CLOCK_ERROR and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def asked_to_stop(folder: Path, run: dict[str, Any]) -> float | None:
    """When a run that a terminal started was asked to stop; None where this one was not."""
    with suppress(OSError):
        asked = (folder / "stop").stat().st_mtime
        return asked if asked > _number(run.get("start")) else None
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _changed(folder: Path) -> float:
    """When a run that has no run.json was last written to."""
    times = [stat.st_mtime_ns / 1e9 for name in ("metrics.jsonl", "metrics.csv") if (stat := stamp_of(folder / name))]
    return max(times, default=0.0)


def previews(folder: Path) -> dict[int, Path]:
    """The folders of a run's previews by the epoch after which they were drawn, in order."""
    found = ((_EPOCH.fullmatch(path.name), path) for path in folder.glob("previews/epoch_*") if path.is_dir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def checkpoints() -> dict[str, Path]:
    """What can be evaluated or opened: the shipped checkpoints, then each run's best and last one."""
    shipped = sorted(path.parent for path in (REPOSITORY / "checkpoints").glob("*/config.json"))
    found = {folder.name: folder for folder in shipped}
    for run in found_runs():
        for words, folder in checkpoints_of(run.folder).items():
            found[f"runs/{run.name} ({words})"] = folder
    return found


def checkpoints_of(folder: Path) -> dict[str, Path]:
    """The checkpoints of a run, the best first, and the last."""
    kinds = {"best": folder / "best", "last": folder / "model"}
    return {words: path for words, path in kinds.items() if (path / "config.json").is_file()}


def typed(text: str) -> Path:
    """The path that somebody has typed, absolute. Raises UserError where its ~NAME is nobody's."""
    try:
        return Path(text.strip()).expanduser().absolute()
    except RuntimeError:
        raise UserError(f"{text.strip()[:200]}: there is no user of that name here") from None


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(stat.st_size for path in _files(folder) if (stat := stamp_of(path)))


def last_change(folder: Path) -> float:
    """When anything in a folder was last written."""
    return max((stat.st_mtime for path in _files(folder) if (stat := stamp_of(path))), default=0.0)


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def progress(found: Found) -> tuple[int, int]:
    """Steps done and steps in all, as far as they are known."""
    rows = metrics(found.folder)
    done = max(int(_number(found.run.get("step"))), rows[-1]["step"] if rows else 0)
    return done, int(_number(found.run.get("steps")))


def eta(found: Found) -> float | None:
    """Seconds to the end of the training; None where they are not known, or it does not run."""
    left = found.run.get("eta")
    if found.status != "running" or not isinstance(left, int | float):
        return None
    written = stamp_of(found.folder / wsss.run.FILE)
    return max(0.0, left - (time.time() - written.st_mtime)) if written else left
