"""What a look at the network means: moved, lost, swapped, found; each said once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.probing import Finding
from agent.asic.rediscovery import Known, Placed, compare
from agent.asic.transport import Endpoint
from gridpivot.vocabulary import EventKind

pytestmark = pytest.mark.unit

MACS = [f"02:00:00:00:00:{number:02x}" for number in range(20)]
HOSTS = [f"10.0.0.{number}" for number in range(20)]


def row(number: int, answers: bool = False, host: int | None = None, mac: str | None = None) -> Placed:
    where = HOSTS[number if host is None else host]
    return Placed(MACS[number] if mac is None else mac, Endpoint(where, 4028, 80), answers)


def seen(number: int, host: int | None = None, mac: str | None = "own") -> Finding:
    return Finding(
        HOSTS[number if host is None else host], "luxos", "Antminer S21", mac=MACS[number] if mac == "own" else mac
    )


def kinds(changes) -> list[EventKind]:
    return [event.kind for event in changes.events]


def test_a_site_that_stands_as_written_says_nothing() -> None:
    rows = [row(0, answers=True), row(1), row(2, mac="")]
    assert compare(rows, [seen(1), seen(2)], Known()) == compare(rows, [seen(1), seen(2, mac=None)], Known())
    assert not compare(rows, [seen(1), seen(2)], Known()).events


def test_a_new_lease_moves_the_endpoint_and_keeps_the_ports() -> None:
    changes = compare([row(0), row(1, answers=True)], [seen(0, host=7)], Known())
    assert changes.moves == ((0, Endpoint(HOSTS[7], 4028, 80)),)
    assert kinds(changes) == [EventKind.DEVICE_MOVED]
    assert MACS[0] in changes.events[0].message and HOSTS[7] in changes.events[0].message


def test_two_devices_that_exchanged_addresses_both_move() -> None:
    changes = compare([row(0), row(1)], [seen(0, host=1), seen(1, host=0)], Known())
    assert changes.moves == ((0, Endpoint(HOSTS[1], 4028, 80)), (1, Endpoint(HOSTS[0], 4028, 80)))
    assert kinds(changes) == [EventKind.DEVICE_MOVED] * 2


def test_one_mac_at_two_addresses_is_not_followed() -> None:
    changes = compare([row(0)], [seen(0, host=5), seen(0, host=6)], Known())
    assert changes.moves == () and EventKind.DEVICE_LOST not in kinds(changes)


def test_lost_is_said_at_the_second_look_and_once_until_it_came_back() -> None:
    known, rows = Known(), [row(0)]
    said = [kinds(compare(rows, [], known)) for _ in range(4)]
    assert said == [[], [EventKind.DEVICE_LOST], [], []]
    assert kinds(compare(rows, [seen(0)], known)) == []
    assert [kinds(compare(rows, [], known)) for _ in range(2)] == [[], [EventKind.DEVICE_LOST]]


def test_what_was_not_looked_for_is_not_lost() -> None:
    known = Known()
    away = Placed(MACS[0], Endpoint("192.168.7.7"), False, in_range=False)
    assert [kinds(compare([away], [], known)) for _ in range(4)] == [[]] * 4


def test_a_device_that_answers_the_poller_is_never_lost_nor_moved() -> None:
    known = Known()
    for _ in range(3):
        assert compare([row(0, answers=True)], [seen(0, host=9)], known).moves == ()
    assert not known.lost


def test_another_device_in_the_place_of_a_missing_one_is_swapped_and_said_once() -> None:
    known = Known()
    first = compare([row(0)], [seen(9, host=0)], known)
    assert kinds(first) == [EventKind.DEVICE_SWAPPED] and MACS[9] in first.events[0].message
    assert kinds(compare([row(0)], [seen(9, host=0)], known)) == []
    assert kinds(compare([row(0)], [seen(8, host=0)], known)) == [EventKind.DEVICE_SWAPPED]


def test_a_stranger_where_a_device_stood_that_moved_on_is_found_not_swapped() -> None:
    changes = compare([row(0)], [seen(0, host=5), seen(9, host=0)], Known())
    assert sorted(kinds(changes)) == [EventKind.DEVICE_FOUND, EventKind.DEVICE_MOVED]


def test_a_new_device_is_found_once() -> None:
    known = Known()
    assert kinds(compare([row(0, answers=True)], [seen(5)], known)) == [EventKind.DEVICE_FOUND]
    assert kinds(compare([row(0, answers=True)], [seen(5, host=6)], known)) == []


def test_an_answer_that_is_no_miner_is_no_event() -> None:
    assert compare([], [Finding(HOSTS[3])], Known()).events == ()


def test_without_a_mac_to_compare_the_benefit_of_the_doubt_is_given() -> None:
    assert compare([row(0)], [seen(0, mac=None)], Known()).events == ()


@given(
    where=st.lists(st.integers(0, 19), min_size=6, max_size=6, unique=True),
    absent=st.sets(st.integers(0, 5)),
    strangers=st.sets(st.integers(6, 19), max_size=5),
)
def test_moves_put_every_device_where_its_mac_answers_and_a_second_look_is_calm(
    where: list[int], absent: set[int], strangers: set[int]
) -> None:
    rows, known = [row(number) for number in range(6)], Known()
    free = [host for host in range(20) if host not in where]
    findings = [seen(number, host=where[number]) for number in range(6) if number not in absent]
    findings += [seen(number, host=host) for number, host in zip(strangers, free, strict=False)]
    changes = compare(rows, findings, known)
    ends = dict(changes.moves)
    moved = [Placed(held.mac, ends.get(number, held.endpoint), False) for number, held in enumerate(rows)]
    for number in range(6):
        if number not in absent:
            assert moved[number].endpoint.host == HOSTS[where[number]]
        else:
            assert number not in ends
    again = compare(moved, findings, known)
    assert not again.moves and set(kinds(again)) <= {EventKind.DEVICE_LOST}
