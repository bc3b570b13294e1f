"""Several processes share the suite: none beside one that measures, and each test once."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from company import FEW, LONGEST, Room, in_order


def item(path: str, *marks: str, served: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        path=Path(path),
        fixturenames=[served],
        get_closest_marker=lambda name: name if name in marks else None,
    )


def test_what_measures_comes_first_and_the_other_half_soon_comes_to_what_takes_long():
    short = [item("a") for _ in range(200)]
    long, beside = item("b", "slow"), item("b")
    longest = item(LONGEST[0], "slow")
    served, with_it, small = item("c", served="address"), item("c", "slow"), item("e", served="small_address")
    alone = item("d", "alone")
    given = [*short[:3], long, beside, served, with_it, small, alone, longest, *short[3:]]
    ordered = in_order(given)
    assert len(ordered) == len(given) and {id(one) for one in ordered} == {id(one) for one in given}
    assert ordered[:3] == [alone, small, served], "of whose module the other test needs no app"
    of_the_other = ordered[len(given) // 2 :]
    assert all(one.path.name == "a" for one in of_the_other[:FEW])
    assert of_the_other[FEW:][:4] == [longest, long, beside, with_it]


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
