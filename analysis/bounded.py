"""A cache that forgets what was asked for longest ago."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Bounded:
    """At most `size` values by their keys, each computed once while it is remembered, one at a time under `lock`."""

    def __init__(self, size: int, lock: threading.RLock) -> None:
        self.size, self.lock = size, lock
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The value of `key`; computed if it is not remembered."""
        with self.lock:
            if key not in self._values:
                self._values[key] = compute()
                while len(self._values) > self.size:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]

    def __len__(self) -> int:
        return len(self._values)
