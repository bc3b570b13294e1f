"""A cache that forgets what was asked for longest ago."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any

MOST_BYTES = 192 * 2**20
"""Of the arrays that one cache remembers; the newest value is kept however large it is."""


class Bounded:
    """At most `size` values by their keys, and at most `most_bytes` of arrays in them; `lock` guards them."""

    def __init__(self, size: int, lock: threading.RLock, most_bytes: int = MOST_BYTES) -> None:
        self.size, self.lock, self.most_bytes = size, lock, most_bytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()  # with their bytes

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The value of `key`; computed, while all others wait, if it is not remembered."""
        with self.lock:
            if key not in self._values:
                self._keep(key, compute())
            self._values.move_to_end(key)
            return self._values[key][0]

    def get_unlocked(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """As `get`, for what takes long: nobody waits, but two who ask at once both compute it."""
        with self.lock:
            is_known = key in self._values
        if is_known:
            return self.get(key, compute)
        value = compute()
        return self.get(key, lambda: value)

    def _keep(self, key: Hashable, value: Any) -> None:
        self._values[key] = value, array_bytes(value)
        while len(self._values) > 1 and (len(self._values) > self.size or self._bytes() > self.most_bytes):
            self._values.popitem(last=False)

    def _bytes(self) -> int:
        return sum(count for _, count in self._values.values())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)


def array_bytes(value: Any) -> int:
    """Bytes of an array or tensor, or of all those in a list, a tuple or a dataclass; 0 for anything else."""
    if is_dataclass(value):
        return sum(array_bytes(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, list | tuple):
        return sum(map(array_bytes, value))
    return int(getattr(value, "nbytes", 0))
