"""One process or many: `torchrun` says which by its environment, nothing else needs to be configured."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from wsss import UserError
from wsss.exits import LOST_RANK

_PATIENCE = timedelta(hours=12)  # of processes that wait while the first one evaluates
_MEETING = timedelta(minutes=30)  # until all processes have been started
_GRACE = 60.0  # seconds to finish a step, and to save, when torchrun is gone


class Group(NamedTuple):
    """This process among those that train together."""

    rank: int
    world: int
    device: torch.device
    control: dist.ProcessGroup | None = None  # carries words between the processes, not through the GPUs

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def maximum(self, number: int) -> int:
        """The largest of all processes' numbers: what one of them knows, all know."""
        if self.world == 1:
            return number
        shared = torch.tensor(number)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.control)
        return int(shared)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give these tensors, all of one type, the values that they have in the first process."""
        if self.world == 1:
            return
        tensors = list(tensors)
        shared = torch.cat([tensor.flatten() for tensor in tensors])  # one message: to send each alone takes longer
        dist.broadcast(shared, 0)
        for tensor, values in zip(tensors, shared.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(values.view_as(tensor))

    def gathered(self, sentence: str) -> list[str]:
        """The sentences of all processes, without the empty ones."""
        if self.world == 1:
            return [sentence] if sentence else []
        sentences = [""] * self.world
        dist.all_gather_object(sentences, sentence, group=self.control)
        return [sentence for sentence in sentences if sentence]


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the processes that `torchrun` started, on the device of this one; leave them at the end.

    Raises:
        UserError: the device cannot be used, a process does not know which one it is, or finds no other.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Group(0, 1, pick_device(device))
        return
    picked = pick_device(device)
    for name in ("RANK", *(("LOCAL_RANK",) if picked.type == "cuda" else ())):
        if name not in os.environ:
            raise UserError(f"WORLD_SIZE is set, but {name} is not: start several processes with torchrun, or unset it")
    if picked.type == "cuda":
        torch.cuda.set_device(picked)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_leave_with_torchrun, args=(os.getppid(),), daemon=True).start()
    try:
        store, rank, world = next(rendezvous("env://", timeout=_MEETING))
    except dist.DistError as error:
        where = ", ".join(f"{name}={os.environ.get(name)}" for name in ("MASTER_ADDR", "MASTER_PORT"))
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"the processes do not find each other by {where} ({reason}); start all with torchrun"
        ) from None
    except ValueError as error:  # a variable is missing, or is no number
        raise UserError(f"WORLD_SIZE is set, but not all that torchrun sets beside it ({error}); start it so") from None
    if os.environ.get("LOCAL_WORLD_SIZE") == str(world):
        # torchrun keeps its store over a restart (seen in 2.14): the new processes would read the dead ones' addresses.
        # On several machines it does not count restarts alike; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 helps.
        store = dist.PrefixStore(f"restart-{restarts()}", store)
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo", store=store, rank=rank, world_size=world)
    control = dist.new_group(backend="gloo", timeout=_PATIENCE)
    yield Group(dist.get_rank(), world, picked, control)
    dist.destroy_process_group()  # not after a failure: it would wait for processes that are gone


def leads() -> bool:
    """Whether this process will lead, before they have joined."""
    return os.environ.get("RANK", "0") == "0"


def warn(sentence: str) -> None:
    """Say, by the first process alone, what may not be meant."""
    if leads():
        print(f"warning: {sentence}", file=sys.stderr)


def restarts() -> int:
    """How often torchrun has started this training anew (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _leave_with_torchrun(parent: int) -> None:
    """When torchrun is killed its processes would train on, unseen: finish the step, save and leave."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(LOST_RANK)  # the step has not ended: most likely it waits for a process that is gone


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one. Of several processes each has a GPU of its own.

    Raises:
        UserError: it is not there.
    """
    is_alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if is_alone:
            return torch.device(name)
    if name.split(":")[0] == "cuda" and not is_alone:
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # not the first one: each would take a part of its memory
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise UserError(f"device {name!r} cannot be used here ({str(error).splitlines()[0][:200]})") from None
    return device
