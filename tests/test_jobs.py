"""A job outlives the page that started it, is never lost, and nothing else is ever ended in its place.

Each test is one row of the reliability table; `python -m pytest -m reliability` prints it.
"""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from reliability import measured, until

from analysis import commands, jobs, run_files, runs, warden
from analysis.tabs import form, train
from wsss import UserError
from wsss.beginning import require_own
from wsss.state import has_state, newest_whole

pytestmark = [pytest.mark.reliability, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
SMALL = {
    **{"encoder": "test_efficientnet", "encoder_weights": "none", "aspp_channels": 8, "decoder_channels": 8},
    **{"shape_channels": 8, "info_radius": 2, "refine_steps": 2, "crop": 32, "batch": 4, "epochs": 200},
    **{"warmup_epochs": 1, "log_steps": 1, "save_steps": 5, "eval_epochs": 0, "previews": 0, "precision": "float32"},
}
"""A training run that takes some milliseconds a step and does not end by itself."""
STEPS = "import time\nfor step in range(10_000):\n    print('step', step, flush=True)\n    time.sleep(0.02)"
STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{STEPS}"
FAMILY = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {STUBBORN!r}])\n{STEPS}"
"""Jobs that stand for a training where only their process matters."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder of runs of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("WSSS_RUNS", str(tmp_path / "runs"))
        yield tmp_path / "runs"
        end_all()


def end_all() -> None:
    """Kill what the page still takes for a job of it, and nothing else."""
    for found in [*runs.found_runs(), *runs.found_evaluations()]:
        if alive := runs.living_warden(found.job, found.folder):
            for process in [alive, *alive.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):  # it may have ended by itself meanwhile
                    process.kill()


def test_a_full_disk_costs_a_lock_no_more_than_its_holders_name(tmp_path, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        lock = jobs._lock("cpu", tmp_path / "one")
    with pytest.raises(UserError, match="cpu is busy with another job"):
        jobs._lock("cpu", tmp_path / "two")
    os.close(lock)
    os.close(jobs._lock("cpu", tmp_path / "two"))


def test_a_run_that_ended_before_its_first_state_does_not_keep_its_name(place):
    """As the command sees it too; what has a state, or scores, is a run."""
    folder = runs.folder_of("early")
    folder.mkdir(parents=True)
    for name in ("run.json", "job.json", "log.txt", "lock"):
        (folder / name).write_text("{}" if name.endswith("json") else "")
    require_own(folder)
    assert begin("early", "pass").is_alive or runs.known("early").code == 0
    (folder / "metrics.jsonl").touch()
    until(lambda: not runs.known("early").is_alive)
    with pytest.raises(UserError, match="resume it, delete it, or choose another name"):
        begin("early")
    with pytest.raises(UserError, match="which a new run did not write"):
        require_own(folder)


def test_a_device_is_free_as_soon_as_its_job_has_told_its_end(place):
    for number in range(5):
        found = begin(f"short-{number}", "pass")
        while runs.look(found.folder).is_alive:
            pass
        assert is_free()


def test_a_process_that_starts_too_late_is_ended_and_gives_the_device_back(place, monkeypatch):
    monkeypatch.setattr(jobs, "_PATIENCE", 0.0)
    with pytest.raises(UserError, match="late: the process did not start"):
        begin("late")
    until(is_free)
    assert not (runs.folder_of("late") / warden.FILE).exists()


def test_a_plain_file_in_the_place_of_a_run_is_told_in_words(place):
    place.mkdir()
    (place / "notes").write_text("bread, milk")
    with pytest.raises(UserError, match="notes: cannot be written"):
        begin("notes")


def begin(name: str, code: str = STEPS, kind: str = "training", device: str = "cpu") -> runs.Found:
    folder = runs.folder_of(name, evaluation=kind == "evaluation")
    return jobs.start(folder, [sys.executable, "-c", code], kind=kind, device=device)


def begin_training(name: str) -> runs.Found:
    values = form.values_of("tiny")
    names = [field.name for field in form.fields(form.Config)]
    config = form.config_of([SMALL.get(key, value) for key, value in zip(names, values, strict=True)])
    folder = runs.folder_of(name)
    return jobs.start(folder, commands.training_argv("tiny", config, folder), kind="training", device="cpu")


def family(found: runs.Found) -> list[psutil.Process]:
    """The living processes of a job's session; to look at, not to end: a forged file may name any process."""
    alive = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == found.job.get("pid") and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except (psutil.Error, OSError):
            continue
    return alive


def is_free(device: str = "cpu") -> bool:
    """Whether another job gets the device."""
    try:
        os.close(jobs._lock(device, Path("test")))
    except UserError:
        return False
    return True


def seconds_until(condition: Callable[[], object], limit: float) -> float:
    begun = time.monotonic()
    until(condition, limit)
    return time.monotonic() - begun


def cancel(found: runs.Found, after: float, *, times: int = 1) -> float:
    """Stop a job `after` seconds; returns how long its processes took to be gone."""
    time.sleep(after)
    for _ in range(times):
        jobs.stop(runs.look(found.folder))
        time.sleep(0.2 * (times > 1))
    return seconds_until(lambda: not family(found), 60)


def test_j2_a_stopped_job_is_gone_with_all_its_processes(place):
    chance = random.Random(2)
    moments = [0.0, *(chance.uniform(0, 1.5) for _ in range(5))]
    quick, states = [], []
    stubborn, beside = (
        begin("stubborn", STUBBORN, device="cuda:9"),
        ThreadPoolExecutor(1),
    )  # while the others are stopped
    slowly = beside.submit(cancel, stubborn, 0.5)
    for number, moment in enumerate(moments):
        found = begin(f"light-{number}", FAMILY if number % 2 else STEPS)
        quick.append(0.0 if number % 2 else cancel(found, moment, times=1 + number % 3))
        if number % 2:  # its child ignores the signal and is killed with the rest as soon as it has ended
            quick[-1] = cancel(found, moment)
        until(is_free, 10)
        states.append(runs.look(found.folder).status)
    loads = 0
    for number, step in enumerate((0, 7)):
        found = begin_training(f"run-{number}")
        until(lambda found=found, step=step: runs.progress(runs.look(found.folder))[0] >= step, 120)
        quick.append(cancel(found, 0.0, times=1 + number))
        until(is_free, 10)
        states.append(runs.look(found.folder).status)
        # One that is stopped while it is imported has written none.
        is_early = step == 0 and not has_state(found.folder)
        loads += is_early or newest_whole(found.folder / "states").is_dir()
    fast, slow = max(quick), slowly.result()
    states.append(runs.look(stubborn.folder).status)
    stopped = sum(state == "stopped" for state in states)
    measured(
        "J2",
        f"{stopped}/9 stopped, {fast:.1f} s, {slow:.1f} s where ignored, {loads}/2 load, lock free",
        "9/9, 5 s, 15 s, 2/2",
        stopped == 9 and fast <= 5 and slow <= 15 and loads == 2 and is_free(),
    )


SERVER = """
import sys, time
from analysis import jobs, runs
jobs.start(runs.folder_of(sys.argv[1]), [sys.executable, "-c", sys.argv[2]], kind="training", device="cpu")
print("started", flush=True)
time.sleep(1000)
"""
LINES = """
import sys, time
from pathlib import Path
for n in range(99):
    print('line', n, flush=True)
while not Path('FREE').exists():
    time.sleep(0.02)
print('line', 99, flush=True)
sys.exit(3)
"""


def killed_server(name: str, code: str) -> None:
    """A page's process that starts a job and is killed with -9."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, name, code], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    assert server.stdout.readline() == b"started\n"
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    server.stdout.close()


def test_j3_a_job_outlives_a_killed_server_and_its_end_is_known(place):
    free = place.with_name("free")
    killed_server("one", LINES.replace("FREE", str(free)))
    adopted = runs.known("one").status in runs.ALIVE and not is_free()
    free.touch()
    until(lambda: not runs.known("one").is_alive)
    time.sleep(0.2)
    killed_server("two", STEPS)
    time.sleep(0.5)
    adopted += runs.known("two").is_alive
    gone = cancel(runs.known("two"), 0)
    until(is_free, 10)
    first, second = runs.known("one"), runs.known("two")
    lines = re.findall(r"line (\d+)", run_files.tail(first.folder / runs.LOG))
    seen = (first.status, first.code, second.status, second.code)
    measured(
        "J3",
        f"adopted {adopted}/2, {len(lines)}/100 lines, {first.status} with {first.code}, cancelled in {gone:.1f} s",
        "2/2, 100/100, failed with 3",
        adopted == 2 and lines == [str(n) for n in range(100)] and seen == ("failed", 3, "stopped", -signal.SIGTERM),
    )


def forged(name: str, **content) -> runs.Found:
    """A run whose files name a process that is not its own."""
    folder = runs.folder_of(name)
    folder.mkdir(parents=True)
    host = os.uname().nodename
    facts = {"host": host, "start": time.time(), "status": "running", "kind": "training", "argv": [], **content}
    for file in (warden.FILE, "run.json") if "create_time" not in content else (warden.FILE,):
        (folder / file).write_text(json.dumps({"create_time": 1.0, **facts}))
    return runs.known(name)


def test_j4_a_foreign_process_is_never_signalled_and_no_zombie_is_left(place, monkeypatch):
    stranger = subprocess.Popen([sys.executable, "-c", STEPS], stdout=subprocess.DEVNULL, start_new_session=True)
    created = psutil.Process(stranger.pid).create_time()
    cases = [
        forged("reused", pid=stranger.pid),
        forged("same-moment", pid=stranger.pid, create_time=created),  # another program, even if started just then
        forged("init", pid=1, create_time=psutil.Process(1).create_time()),
        forged("no-number", pid="12; kill"),
        forged("own-group", pid=0),
        forged("all", pid=-1),
    ]
    lost, signals = sum(case.status == "killed" for case in cases), []
    with monkeypatch.context() as patch:  # what would be signalled is written down: it could be this machine's first
        patch.setattr(os, "killpg", lambda *given: signals.append(given))
        patch.setattr(psutil.Process, "send_signal", lambda *given: signals.append(given))
        patch.setattr(psutil.Process, "terminate", lambda *given: signals.append(given))
        patch.setattr(psutil.Process, "kill", lambda *given: signals.append(given))
        assert all("does not run" in jobs.stop(case) for case in cases)
    unharmed = stranger.poll() is None and not signals
    stranger.kill()
    stranger.wait()

    own, threads = psutil.Process(), threading.active_count()
    begin("first", "pass")
    until(lambda: not runs.known("first").is_alive and is_free() and threading.active_count() <= threads)
    before = own.num_fds(), threads
    for number in range(20):
        begin(f"short-{number}", "pass")
        until(is_free, 30)
    until(lambda: threading.active_count() <= threads)
    zombies = sum(child.status() == psutil.STATUS_ZOMBIE for child in own.children())
    finished = sum(runs.known(f"short-{number}").status == "finished" for number in range(20))
    after = own.num_fds(), threading.active_count()
    measured(
        "J4",
        f"{lost}/6 lost, unharmed: {unharmed}, {finished}/20 end, {zombies} zombies, fds, threads {before}, {after}",
        "6/6, unharmed, 20/20, 0, unchanged",
        lost == 6 and unharmed and finished == 20 and zombies == 0 and after[0] <= before[0] and after[1] <= threads,
    )


def test_a_job_that_fails_of_many_faults_tells_the_first(place):
    found = forged("of-faults", status="failed", exit_code=2, end=time.time())
    log = found.folder / runs.LOG
    for said, reason in (
        (
            "begun\nerror: the data have 2 faults:\na.png: is broken\nb.png: is empty\n",
            "the data have 2 faults: a.png: is broken",
        ),
        ("begun\nerror: the disk is full\nbye\n", "the disk is full"),
        ("begun\nkilled in the end\n", "killed in the end"),
    ):
        log.write_text(said)
        assert jobs.reason(runs.known("of-faults")) == reason


def test_a_run_of_a_terminal_that_does_not_end_is_killed_when_it_is_stopped_again(place, monkeypatch):
    terminal = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    terminal.stdout.readline()  # the signal is ignored from now on
    forged("by-hand", pid=terminal.pid, create_time=psutil.Process(terminal.pid).create_time(), device="cpu")
    folder = runs.folder_of("by-hand")
    (folder / warden.FILE).rename(folder / "run.json")
    assert "finishes its step" in jobs.stop(runs.known("by-hand"))
    assert terminal.poll() is None
    monkeypatch.setattr(warden, "GRACE", -1)
    assert "was killed" in jobs.stop(runs.known("by-hand"))
    assert terminal.wait(5) == -signal.SIGKILL


def test_a_run_that_a_terminal_goes_on_with_is_not_asked_to_stop_as_its_dead_warden_was(place):
    terminal = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    forged("resumed", pid=terminal.pid, create_time=psutil.Process(terminal.pid).create_time(), device="cpu")
    folder = runs.folder_of("resumed")
    (folder / warden.FILE).rename(folder / "run.json")
    asked = {"pid": 1, "create_time": 1.0, "host": os.uname().nodename, "kind": "training", "start": 1.0, "stop": 2.0}
    (folder / warden.FILE).write_text(json.dumps(asked))
    assert runs.known("resumed").status == "running"
    terminal.kill()
    terminal.wait()
    assert runs.known("resumed").status == "killed"


def test_j5_of_ten_that_start_together_one_runs(place):
    def press(number: int) -> str:
        try:
            begin(f"run-{number % 8}", kind="evaluation" if number % 2 else "training")
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(10) as sessions:
        answers = list(sessions.map(press, range(10)))
    refused = [answer for answer in answers if "cpu is busy with " in answer]  # the winner may not have its name yet
    alive = [found for found in [*runs.found_runs(), *runs.found_evaluations()] if found.is_alive]
    cancel(alive[0], 0)
    until(is_free, 10)
    terminal = subprocess.Popen([sys.executable, "-c", STEPS], stdout=subprocess.DEVNULL)
    create_time = psutil.Process(terminal.pid).create_time()
    forged("by-hand", pid=terminal.pid, create_time=create_time, device="cpu")
    folder = runs.folder_of("by-hand")
    (folder / warden.FILE).rename(folder / "run.json")
    with pytest.raises(UserError, match="cpu is busy with by-hand"):
        begin("next")
    jobs.stop(runs.known("by-hand"))
    terminal.wait(5)
    begin("next", "pass")
    one = answers.count("") == len(alive) == 1
    measured("J5", f"{answers.count('')} runs, {len(refused)} told that it is busy", "1, 9", one and len(refused) == 9)


FLOOD = """
import sys
out = sys.stdout.buffer
out.write(b"\\xff\\xfe no text \\x80\\n" + b"y" * 1_000_000 + b"\\n")
for n in range(200_000):
    out.write(b"\\x1b[32mline %d\\x1b[0m " % n + b"x" * 225 + b"\\n")
out.write(b"\\xff\\xfe no text \\x80\\nbar 1%\\rbar 50%\\r\\x1b[2Kbar 100%\\n<script>last</script>")
"""


def test_j6_a_flood_of_output_reaches_the_page_as_64_kb(place):
    found = begin("flood", FLOOD)
    (found.folder / "metrics.jsonl").write_text('{"step": 1, "total": 2.5, "epoch": 1}\n[1]\n{"step": 2, "tot')
    until(lambda: not runs.look(found.folder).is_alive, 60)
    written = (found.folder / runs.LOG).stat().st_size
    own = psutil.Process()
    train._refresh("flood", [], 1, False, {})  # Plotly and pandas take their memory once
    before, largest = own.memory_info().rss, 0
    for _ in range(20):
        view = train._refresh("flood", [], 1, False, {})
        largest = max(largest, len(view.log.encode()) + len(view.status.encode()))
    grown = (own.memory_info().rss - before) / 1e6
    sound = view.log.endswith("bar 100%\n<script>last</script>") and "\x1b" not in view.log and "50%" not in view.log
    kept = [row["step"] for row in run_files.metrics(found.folder)] == [1]
    measured(
        "J6",
        f"{written / 1e6:.0f} MB written, {largest / 1024:.1f} KB shown, {grown:+.1f} MB, end and torn line right: "
        f"{sound and kept}",
        "64 KB, +30 MB",
        written > 49e6 and largest <= 66_000 and grown <= 30 and sound and kept,
    )


def visitor(address: str) -> Client:
    """Who opens the page; on a machine that trains meanwhile an answer may take a while."""
    return Client(address, verbose=False, httpx_kwargs={"timeout": 60})


def status_of(window: Client) -> tuple[str, int, str]:
    """State, step and log of the watched run, as the page gets them; it is sent only what has changed."""
    answer, status = [], None
    deadline = time.monotonic() + 60
    while status is None and time.monotonic() < deadline:
        answer = window.predict("watched", [], 1, False, api_name="/train_look")
        status = next((part for part in answer if "data-state" in str(part)), None)
    texts = [part for part in answer if isinstance(part, str) and "data-state" not in part]
    log = max(texts, key=len, default="")  # "": the window has it already, nothing was added since
    step = re.search(r"step (\d+) of", status)
    return re.search(r'data-state="(\w+)"', status)[1], int(step[1]) if step else 0, log


@pytest.fixture
def served(address, runs_folder, monkeypatch) -> Iterator[str]:
    """The running app, where what it runs is found too; that is removed at the end."""
    with monkeypatch.context() as patch:
        patch.setenv("WSSS_RUNS", str(runs_folder))
        yield address
        end_all()
        shutil.rmtree(runs_folder / "watched")


def test_j1_reloads_and_other_windows_do_not_touch_a_job(served):
    names = [field.name for field in form.fields(form.Config)]
    values = [SMALL.get(name, value) for name, value in zip(names, form.values_of("tiny"), strict=True)]
    visitor(served).predict("tiny", "watched", "", *values, api_name="/train_start")
    with pytest.raises(AppError, match="busy with watched"):
        visitor(served).predict("tiny", "second", "", *values, api_name="/train_start")
    pid = runs.known("watched").job["pid"]
    until(lambda: runs.progress(runs.known("watched"))[0] > 1, 120)
    steps, reloaded, windows = [], visitor(served), [visitor(served) for _ in range(2)]
    for _ in range(5):
        reloaded.reset_session()
        for window in (reloaded, *windows):
            state, step, log = status_of(window)
            assert state == "running" and ("epoch" in log or window is not reloaded)
            steps.append(step)
    untouched = runs.known("watched").job["pid"] == pid and runs.known("watched").job["stop"] is None
    windows[0].predict("watched", api_name="/train_stop")
    until(lambda: not runs.known("watched").is_alive, 30)
    rows = [row["step"] for row in run_files.metrics(runs.folder_of("watched"))]
    whole = rows == list(range(1, len(rows) + 1)) and runs.known("watched").code == 143
    forward = steps == sorted(steps) and steps[-1] > steps[0]
    measured(
        "J1",
        f"5 reloads, 2 windows: same job {untouched}, steps {steps[0]} to {steps[-1]} rising {forward}, "
        f"log whole {whole}",
        "all",
        untouched and forward and whole,
    )
