"""The batches of an epoch, prepared by processes that may die or hang."""

import multiprocessing
import signal
from collections.abc import Iterator

import numpy as np
from torch.utils.data import DataLoader, Dataset

from wsss import UserError
from wsss.config import Config
from wsss.data.augment import TrainingViews, View
from wsss.data.item import Source
from wsss.distributed import Group
from wsss.exits import WorkerFailed, worker_sentence

_TIMEOUT = 120  # seconds; without one, a worker that hangs would hang the run


def batches(length: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The indices of each step of an epoch: a shuffle, cut into equal batches; the last is filled up from the start.

    It does not depend on the number of processes: each takes its share of every batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(length)
    steps = -(-length // batch)
    return np.resize(order, (steps, batch)).tolist()


def loader(photographs: Source, config: Config, epoch: int, group: Group, *, skip: int = 0) -> Iterator[View]:
    """This process's share of the batches of an epoch, without the first `skip`.

    Raises:
        UserError: a photograph cannot be used; the sentence names it.
        WorkerFailed: a process that loads them died or hangs. None is left behind.
    """
    views = TrainingViews(
        photographs,
        crop=config.crop,
        least_scale=config.least_scale,
        color_jitter=config.color_jitter,
        seed=config.seed,
        epoch=epoch,
        with_masks=config.supervision == "masks",
    )
    order = batches(len(views), config.batch, config.seed, epoch)[skip:]
    if not order:
        return
    before = set(multiprocessing.active_children())
    loaded = DataLoader(
        _Named(views, photographs.names),
        batch_sampler=[batch[group.rank :: group.world] for batch in order],
        num_workers=config.workers,
        worker_init_fn=_ignore_signals,
        pin_memory=group.device.type == "cuda",
        timeout=_TIMEOUT if config.workers else 0,
    )
    steps = iter(loaded)
    workers = set(multiprocessing.active_children()) - before
    try:
        yield from steps
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise WorkerFailed(worker_sentence(str(error))) from None
    except UserError as error:
        raise UserError(_own_words(str(error))) from None
    finally:
        _end(workers)


class _Named(Dataset):
    """Views whose failures name their photograph, whatever they are."""

    def __init__(self, views: TrainingViews, names: tuple[str, ...]) -> None:
        self.views, self.names = views, names

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> View:
        try:
            return self.views[index]
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise UserError(f"{self.names[index]}: cannot be loaded ({type(error).__name__}: {error})") from error


def _end(workers: set[multiprocessing.Process]) -> None:
    """Workers ignore the signals that would end them, and torch takes a killed one for a failure: it is not told."""
    if not workers:
        return
    torch_watches = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
    signal.signal(signal.SIGCHLD, torch_watches)


def _ignore_signals(worker: int) -> None:
    """A signal to the whole group is for the main process, which finishes its step with this one's help."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _own_words(text: str) -> str:
    """The sentence of a UserError that torch has wrapped into the traceback of the process it came from."""
    return text.strip().rpartition("wsss.UserError: ")[2]
