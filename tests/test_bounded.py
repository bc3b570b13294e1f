"""The cache: each value once, and not too many."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from analysis.bounded import Bounded


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
