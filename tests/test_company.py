"""Several processes share the suite: none beside one that measures, and each test once."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from company import Room, in_order


def item(path: str, *marks: str, served: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        path=Path(path),
        fixturenames=["address"] if served else [],
        get_closest_marker=lambda name: name if name in marks else None,
    )


def test_what_measures_comes_first_and_the_two_halves_begin_with_what_takes_long():
    short = [item("a") for _ in range(6)]
    long, beside = item("b", "slow"), item("b")
    served, with_it = item("c", served=True), item("c", "slow")
    alone = item("d", "alone")
    given = [*short[:3], long, beside, served, with_it, alone, *short[3:]]
    ordered = in_order(given)
    assert len(ordered) == len(given) and {id(one) for one in ordered} == {id(one) for one in given}
    assert ordered[:3] == [alone, served, with_it]
    assert ordered[len(given) // 2 :][:2] == [long, beside], "which the other process begins with"


@pytest.fixture
def rooms(tmp_path, monkeypatch) -> list[Room]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return [Room("run"), Room("run")]


def test_one_that_is_alone_waits_for_the_others_to_leave_and_keeps_them_out(rooms):
    seen = []

    def alone() -> None:
        rooms[1].enter(alone=True)
        seen.append("alone")
        rooms[1].leave()

    rooms[0].enter(alone=False)
    other = threading.Thread(target=alone)
    other.start()
    other.join(0.2)
    assert other.is_alive() and not seen
    seen.append("first")
    rooms[0].leave()
    other.join(10)
    assert seen == ["first", "alone"] and not rooms[1].is_held


def test_those_that_measure_nothing_are_in_the_room_together(rooms):
    for room in rooms:
        room.enter(alone=False)
    assert all(room.is_held for room in rooms)
    for room in rooms:
        room.leave()
        room.remove()
