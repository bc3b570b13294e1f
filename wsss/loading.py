"""The batches of an epoch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Dataset

from wsss import UserError
from wsss.config import Config
from wsss.data.augment import TrainingViews, View
from wsss.data.item import Source
from wsss.distributed import Group
from wsss.exits import is_out_of_memory
from wsss.workers import delivered


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
    yield from delivered(
        _Named(views, photographs.names),
        config.workers,
        batch_sampler=[batch[group.rank :: group.world] for batch in order],
        pin_memory=group.device.type == "cuda",
    )


class _Named(Dataset):
    """Views whose failures name their photograph, whatever they are."""

    def __init__(self, views: TrainingViews, names: tuple[str, ...]) -> None:
        self.views, self.names = views, names

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> View:
        try:
            return self.views[index]
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.names[index]}: cannot be loaded ({type(error).__name__}: {error})") from error
