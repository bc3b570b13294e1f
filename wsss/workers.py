"""Work that other processes do, which may die or hang."""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from wsss import UserError
from wsss.exits import WorkerFailed, is_worker_failure, worker_sentence
from wsss.stopping import SIGNALS

_LOADING, _JUDGING = 120, 3600  # seconds for a batch, a photograph; a worker that hangs would hang the run
_FEW = 16  # items that are done before the processes would have begun


def each_of(work: Callable[[int], Any], indices: Sequence[int], device: torch.device) -> Iterator[Any]:
    """work(index) of each index, in order: on a CPU in one process a core, beside a GPU here.

    Raises:
        UserError: that of `work`.
        WorkerFailed: a process died or hangs. None is left behind.
    """
    workers = torch.get_num_threads() if device.type == "cpu" and len(indices) >= _FEW else 0
    if workers < 2:
        yield from map(work, indices)
    else:
        yield from delivered(_Work(work, indices), workers, _JUDGING, batch_size=None, collate_fn=_as_it_is)


def delivered(dataset: Dataset, workers: int, patience: float | None = None, **settings: Any) -> Iterator[Any]:
    """What a DataLoader with these settings gives, prepared by `workers` processes; 0: by this one.

    A process that gives nothing for `patience` seconds (120 unless given) is said to hang.

    Raises:
        UserError: that of the dataset, in its own words.
        WorkerFailed: a process cannot be started, died or hangs. None is left behind.
    """
    before = set(multiprocessing.active_children())
    loader = DataLoader(
        dataset,
        num_workers=workers,
        worker_init_fn=_begin,
        timeout=(patience or _LOADING) if workers else 0,
        **settings,
    )
    try:
        loaded = iter(loader)
    except OSError as error:
        _end(set(multiprocessing.active_children()) - before)
        raise WorkerFailed(
            f"a process that loads data cannot be started ({error.strerror or error}); in training choose --workers 0"
        ) from None
    children = set(multiprocessing.active_children()) - before
    try:
        yield from loaded
    except RuntimeError as error:
        if not is_worker_failure(str(error)):
            raise
        raise WorkerFailed(worker_sentence(str(error))) from None
    except UserError as error:
        raise UserError(_own_words(str(error))) from None
    finally:
        _end(children)


class _Work(Dataset):
    """Items that are computed when they are asked for."""

    def __init__(self, work: Callable[[int], Any], indices: Sequence[int]) -> None:
        self.work, self.indices = work, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Any:
        return self.work(self.indices[number])


def _as_it_is(item: Any) -> Any:
    return item


def _end(workers: set[multiprocessing.Process]) -> None:
    """Kill the workers: they ignore SIGTERM. torch takes a killed one for a failure, so that it is not told."""
    if not workers:
        return
    watches = threading.current_thread() is threading.main_thread()  # torch does so, and Python lets, in no other one
    torch_watches = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if watches else None
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
    if watches:
        signal.signal(signal.SIGCHLD, torch_watches)


def _begin(worker: int) -> None:
    """A signal to the whole group is for the main process, which finishes its step with this one's help."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _say_unless_unasked


def _say_unless_unasked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's own, but for a batch that the main process, which another's death has ended, did not take."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _own_words(text: str) -> str:
    """The sentence of a UserError that torch has wrapped into the traceback of the process it came from."""
    return text.strip().rpartition("wsss.UserError: ")[2]
