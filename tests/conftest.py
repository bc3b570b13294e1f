"""What several tests need: photographs, where the data lie; and how the suite is shared by several processes.

The method is imported where it is used: the process that shares out the tests would load it for nothing.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import reliability
from company import Room, in_order, is_alone

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "analysis" / "examples"
CORES = len(os.sched_getaffinity(0))
MOST_WORKERS = 4
"""Each may start an app of its own, which takes more than 1 GB."""

ROOM = pytest.StashKey[Room | None]()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what is to run in the background so
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def animals_root() -> Path:
    """The real photographs of voc-animals; tests that need them are skipped where they are not."""
    root = Path(os.environ.get("WSSS_ANIMALS", ROOT.parent / "shared" / "voc-animals"))
    if not root.is_dir():
        pytest.skip("voc-animals is not here; set WSSS_ANIMALS to its folder")
    return root


@pytest.fixture(scope="session")
def cat() -> np.ndarray:
    """A photograph of a cat's face, (300, 451, 3) uint8."""
    from wsss.data.picture import read_rgb

    return read_rgb(next(EXAMPLES.glob("chelsea.*")))


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A photograph of an astronaut, (512, 512, 3) uint8."""
    from wsss.data.picture import read_rgb

    return read_rgb(next(EXAMPLES.glob("astronaut.*")))


@pytest.fixture(scope="session")
def shipped_or_fresh(tmp_path_factory) -> Path:
    """The shipped checkpoint; before there is one, an untrained network of the same form."""
    shipped = ROOT / "checkpoints" / "animals"
    if (shipped / "config.json").exists():
        return shipped
    from wsss import checkpoint
    from wsss.network import build
    from wsss.presets import animals

    folder = tmp_path_factory.mktemp("fresh") / "animals"
    classes = ("cat", "cow", "dog", "horse", "person", "sheep")
    checkpoint.save(folder, build(animals(), 7, pretrained=False).state_dict(), animals(), classes)
    return folder


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory) -> Path:
    """Of the running app."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def address(shipped_or_fresh, runs_folder) -> Iterator[str]:
    """Of the running app, as a newcomer starts it."""
    from visitor import running

    with running(shipped_or_fresh, WSSS_RUNS=str(runs_folder)) as found:
        yield found


def pytest_configure(config) -> None:
    """A process of several knows where the others' tests are."""
    config.stash[ROOM] = Room(config.workerinput["testrunuid"]) if hasattr(config, "workerinput") else None


def pytest_unconfigure(config) -> None:
    """What the processes were to be told apart by is no longer needed."""
    if room := config.stash.get(ROOM, None):
        room.remove()


@pytest.hookimpl(trylast=True)  # when it is known which tests were asked for
def pytest_collection_modifyitems(config, items) -> None:
    """Several processes share the suite in an order of their own."""
    if config.stash[ROOM]:
        items[:] = in_order(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """A test is in the room with what it sets up."""
    room = item.config.stash[ROOM]
    if room:
        room.enter(alone=False)
    try:
        return (yield)
    finally:
        if room:
            room.leave()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    """One that runs alone may have company while it sets up what it measures, and then waits for it to leave."""
    room = item.config.stash[ROOM]
    if room and is_alone(item):
        room.leave()  # of two that stay and wait for each other to leave, none would
        room.enter(alone=True)
    return (yield)


def pytest_xdist_auto_num_workers(config) -> int:
    """The whole suite takes several processes; tests that are named take this one, in which they can be debugged."""
    is_named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.keyword
    return 0 if is_named or CORES == 1 else min(CORES, MOST_WORKERS)


def pytest_xdist_setupnodes(specs) -> None:
    """The processes share the cores."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, CORES // len(specs))))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """What a test has measured goes with its report to the process that prints the table."""
    report = yield
    report.user_properties.extend(("figure", tuple(figure)) for figure in reliability.not_told())
    return report


def pytest_runtest_logreport(report) -> None:
    """Put what a test has measured into the table."""
    for name, value in report.user_properties:
        if name == "figure":
            reliability.tell(*value)


def pytest_terminal_summary(terminalreporter) -> None:
    """One line for each figure that a reliability test has measured."""
    for line in reliability.table():
        terminalreporter.write_line(line)
