"""A training or an evaluation as a process of its own: start it, stop it, resume it, delete what it left.

The page holds nothing of a job but its folder (see `analysis.runs`). One job at a time has a device: the kernel keeps
its lock as long as a process of the job lives, whatever happens to the page.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from analysis import run_files, runs, warden
from analysis.commands import command_text
from wsss import UserError
from wsss.run import BEFORE_A_STATE

_PATIENCE = 20.0  # seconds until a started process has said that it lives
_PARTING = 1.0  # seconds that a job may take to be gone, and its lock with it, once it has told its end
_DELETED = ".deleted-"  # begins the name of a folder that is being removed
_COMMAND = "$ "  # begins the line of a log that tells what was started
_QUIET_FOR = 600.0  # seconds; a folder without run.json that was written to more recently may be in use


def start(
    folder: Path, argv: Sequence[str], *, kind: str, device: str, resume: bool = False, **facts: Any
) -> runs.Found:
    """Start a job in a folder that is new, or go on in one whose job has ended; returns it as soon as it lives.

    Args:
        kind: training or evaluation.
        device: that the job will use, such as "cpu" or "cuda:0"; one job at a time has it.
        resume: the folder holds a run already.
        facts: written into job.json.

    Raises:
        UserError: the device or the folder is in use, or the job did not start.
    """
    lock = _lock(device, folder)
    try:
        _require_idle(folder, device)
        try:
            if not resume and folder.exists() and not {path.name for path in folder.iterdir()} <= BEFORE_A_STATE:
                raise UserError(f"there is a run {folder.name!r} already: resume it, delete it, or choose another name")
            folder.mkdir(parents=True, exist_ok=True)
            for name in (warden.FILE, "stop"):
                (folder / name).unlink(missing_ok=True)
            child = _begin(folder, argv, {"kind": kind, "device": device, **facts}, lock)
        except OSError as error:
            raise UserError(f"{folder.name}: cannot be written ({error.strerror})") from None
    finally:
        os.close(lock)
    deadline = time.monotonic() + _PATIENCE
    while not (folder / warden.FILE).exists():
        if child.poll() is not None or time.monotonic() > deadline:
            with suppress(ProcessLookupError):  # a late one would begin after its visitor was told that it did not
                os.killpg(child.pid, signal.SIGKILL)
            raise UserError(f"{folder.name}: the process did not start; {_last_line(folder)}")
        time.sleep(0.02)
    return runs.look(folder)


def _begin(folder: Path, argv: Sequence[str], facts: Mapping[str, Any], lock: int) -> subprocess.Popen:
    """The warden, in a session of its own, with the device's lock; nobody waits for it."""
    with (folder / runs.LOG).open("ab") as log:
        log.write(f"{_COMMAND}{command_text(argv)}\n".encode())
        log.flush()
        child = subprocess.Popen(
            [sys.executable, "-m", "analysis.warden", str(folder.absolute()), json.dumps(facts), "--", *argv],
            cwd=runs.REPOSITORY,
            env=os.environ | {"WSSS_DEVICE_LOCK": str(lock)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
        )
    threading.Thread(target=child.wait, daemon=True).start()  # an ended child that nobody waits for is a zombie
    return child


def _lock(device: str, folder: Path) -> int:
    """The device's lock, taken. Raises UserError, naming the holder, where a job has it, or where it cannot be made."""
    places = runs.root() / ".locks"
    try:
        places.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(places / device.replace(":", "-"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(f"{places.name}: cannot be written ({error.strerror})") from None
    if not _take(descriptor):
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another job"
        os.close(descriptor)
        raise UserError(f"{device} is busy with {holder}: stop it, or wait until it has ended")
    with suppress(OSError):  # on a full disk the holder has no name; its lock holds
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, folder.name.encode()[:200], 0)
    return descriptor


def _take(descriptor: int) -> bool:
    """Take the lock of an open file; returns whether its holder was gone within a moment."""
    deadline = time.monotonic() + _PARTING
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _require_idle(folder: Path, device: str) -> None:
    """Raises UserError where the folder, or the device, is in use by a run that a terminal has started."""
    for found in runs.found_runs():
        if found.is_alive and (found.folder == folder or normal(found.device or "") == device):
            place = folder.name if found.folder == folder else device
            raise UserError(f"{place} is busy with {found.name}: stop it, or wait until it has ended")


def normal(device: str) -> str:
    """One name for a device: "cuda" is "cuda:0"."""
    return "cuda:0" if device == "cuda" else device


def stop(found: runs.Found) -> str:
    """Ask a job to end: it finishes its step and saves; after `warden.GRACE` seconds it is killed. Returns words.

    A process is only signalled while it is the one that started the run: an id that another program has by now is not.
    """
    keeper, trainer = runs.living_warden(found.job, found.folder), runs.living_trainer(found.run)
    if keeper is None and trainer is None:
        return f"{found.name} does not run"
    is_killed = False
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        if keeper is None:
            is_killed = _stop_alone(found, trainer)
        elif not found.job.get("stop"):  # a second signal would have the trainer leave without saving
            os.killpg(keeper.pid, signal.SIGTERM)
    if is_killed:
        return f"{found.name} did not end within {warden.GRACE:g} s and was killed; its last saved state stands"
    has_steps = keeper is None or found.job.get("kind") == "training"
    return f"{found.name} finishes its step, saves and ends" if has_steps else f"{found.name} ends, without a report"


def _stop_alone(found: runs.Found, trainer: psutil.Process) -> bool:
    """Stop a run without a warden. Who asks again after the time of grace has it killed; returns whether it was."""
    asked = runs.asked_to_stop(found.folder, found.run)
    if asked is None:
        (found.folder / "stop").touch()
        trainer.terminate()
    elif time.time() - asked > warden.GRACE:
        trainer.kill()
        return True
    return False


def delete(found: runs.Found) -> None:
    """Remove a run's folder with all that is in it. Raises UserError where it is, or may be, in use."""
    if found.is_alive:
        raise UserError(f"{found.name}: still runs; stop it first")
    if found.status == "unknown" and time.time() - runs.last_change(found.folder) < _QUIET_FOR:
        raise UserError(f"{found.name}: was written to a moment ago and may still run; try again in ten minutes")
    if found.folder.parent.resolve() not in (runs.root().resolve(), (runs.root() / runs.EVALUATIONS).resolve()):
        raise UserError(f"{found.name}: is not a folder of runs")
    try:
        # Half a run would look like a broken one. Another one of its name may have been left half deleted.
        found.folder.rename(found.folder.with_name(f"{_DELETED}{time.time_ns()}-{found.name}"))
    except OSError as error:
        raise UserError(f"{found.name}: cannot be deleted ({error.strerror})") from None
    for gone in found.folder.parent.glob(f"{_DELETED}*"):  # also what a server that was killed has left
        shutil.rmtree(gone, ignore_errors=True)


def _last_line(folder: Path) -> str:
    lines = run_files.tail(folder / runs.LOG, 4096).splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith(_COMMAND)]
    return lines[-1] if lines else "its log is empty"


def reason(found: runs.Found) -> str:
    """Why a job failed, in its own words; empty where it did not."""
    if found.status not in ("failed", "killed"):
        return ""
    _, is_said, said = f"\n{run_files.tail(found.folder / runs.LOG)}".rpartition("\nerror: ")
    first, *more = (found.error or (said.strip() if is_said else "") or _last_line(found.folder)).splitlines()
    # All faults of data are told, a line each: the first of them stands for the rest.
    return f"{first} {more[0]}" if more and first.endswith(":") else first
