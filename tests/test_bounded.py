"""The cache: each value once, and not too many."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from analysis.bounded import Bounded, array_bytes


def test_a_value_is_computed_once_however_many_ask_at_once():
    cache, calls = Bounded(2, threading.RLock()), []
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: cache.get("a", lambda: calls.append(1) or object()), range(32)))
    assert len(calls) == 1 and len(set(map(id, got))) == 1


def test_what_was_asked_for_longest_ago_is_forgotten():
    cache = Bounded(2, threading.RLock())
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda key=key: key)
    assert len(cache) == 2
    assert cache.get("a", lambda: "anew") == "a" and cache.get("b", lambda: "anew") == "anew"


def test_a_failure_is_not_remembered():
    cache = Bounded(2, threading.RLock())
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 / 0)
    assert cache.get("a", lambda: 5) == 5


def test_large_values_leave_no_room_for_others_but_the_newest_is_kept():
    cache = Bounded(8, threading.RLock(), most_bytes=1000)
    for key in ("a", "b", "c"):
        cache.get(key, lambda: np.zeros(400, np.uint8))
    assert len(cache) == 2
    cache.get("large", lambda: np.zeros(5000, np.uint8))
    assert len(cache) == 1 and len(cache.get("large", lambda: None)) == 5000


def test_bytes_are_those_of_all_arrays_within():
    assert array_bytes((np.zeros(3, np.float32), [torch.zeros(2, 5)], "text", None)) == 12 + 40


def test_others_are_answered_while_a_long_answer_is_computed():
    cache, begun, done = Bounded(2, threading.RLock()), threading.Event(), threading.Event()

    def long() -> str:
        begun.set()
        assert done.wait(10), "the other one was not answered"
        return "long"

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(cache.get_unlocked, "long", long)
        assert begun.wait(10)
        assert pool.submit(cache.get, "short", lambda: "short").result(10) == "short"
        done.set()
        assert waiting.result(10) == "long"
    assert cache.get_unlocked("long", lambda: "anew") == "long"
