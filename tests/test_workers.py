"""Work shared by processes: the same results in the same order, and no process that dies is waited for."""

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch

from wsss import UserError
from wsss.data.shapes import Shapes
from wsss.evaluate import evaluate
from wsss.exits import WorkerFailed, explained
from wsss.network import build
from wsss.presets import tiny
from wsss.probabilities import PredictionSettings
from wsss.workers import each_of

CPU = torch.device("cpu")
MANY = range(40)


@pytest.fixture(autouse=True)
def two_threads():
    """Also on a machine with one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_other_processes():
    found = list(each_of(lambda index: (index, os.getpid()), MANY, CPU))
    assert [index for index, _ in found] == list(MANY)
    assert len({pid for _, pid in found}) == 2 and os.getpid() not in {pid for _, pid in found}


def test_other_processes_leave_signals_to_this_one():
    ends = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    assert all(each_of(lambda _: all(signal.getsignal(number) is signal.SIG_IGN for number in ends), MANY, CPU))


def test_another_thread_may_ask_and_nobody_is_left(nobody_is_left):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: list(each_of(abs, MANY, CPU))).result() == list(MANY)


def test_little_work_stays_here():
    assert set(each_of(lambda index: os.getpid(), range(3), CPU)) == {os.getpid()}


@pytest.fixture
def nobody_is_left():
    """No process that was begun in the test outlives it."""
    before = set(psutil.Process().children())
    yield
    assert not set(psutil.Process().children()) - before


def test_a_mistake_is_told_in_its_own_words(nobody_is_left):
    def work(index: int) -> int:
        if index == 30:
            raise UserError("thirty: cannot be used")
        return index

    with pytest.raises(UserError, match="^thirty: cannot be used$"):
        list(each_of(work, MANY, CPU))


def test_what_fails_inside_the_work_is_not_taken_for_a_lost_process(nobody_is_left):
    def fail(index: int) -> None:
        raise RuntimeError("can't allocate memory")

    with pytest.raises(RuntimeError, match="can't allocate memory") as failed:
        list(each_of(fail, MANY, CPU))
    assert explained(failed.value)[0] == 5


def test_a_killed_process_ends_the_work(nobody_is_left):
    def work(index: int) -> int:
        if index == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    with pytest.raises(WorkerFailed, match="died"):
        list(each_of(work, MANY, CPU))


def test_scores_do_not_depend_on_who_judges():
    torch.manual_seed(0)
    source, network = Shapes(20, 0), build(tiny(), 5, pretrained=False).eval()
    with torch.no_grad():  # classes win by turns
        network.decoder.layers[-1].weight.mul_(50)
    shared = evaluate(network, source, PredictionSettings())
    torch.set_num_threads(1)
    alone = evaluate(network, source, PredictionSettings())
    assert shared.as_dict(source.classes)["miou"] == pytest.approx(alone.as_dict(source.classes)["miou"], abs=1e-4)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a half-built loader
def test_a_process_that_cannot_be_started_is_told(nobody_is_left, monkeypatch):
    fork, begun = os.fork, []

    def fork_once() -> int:
        if begun:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        begun.append(True)
        return fork()

    monkeypatch.setattr(os, "fork", fork_once)
    with pytest.raises(WorkerFailed, match="cannot be started .Resource temporarily unavailable"):
        list(each_of(lambda index: index, MANY, CPU))


def in_a_thread(index: int) -> int:
    """Fail beside the work as what hands batches over does: of the first item the other end is gone."""

    def fail() -> None:
        try:
            raise ValueError("a bad day") if index else ConnectionResetError("Connection reset by peer")
        except Exception:
            sys.excepthook(*sys.exc_info())

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    return index


def test_a_batch_that_nobody_takes_any_more_leaves_no_traceback(capfd):
    assert list(each_of(in_a_thread, MANY, CPU)) == list(MANY)
    said = capfd.readouterr().err
    assert "ValueError: a bad day" in said and "ConnectionResetError: Connection" not in said
