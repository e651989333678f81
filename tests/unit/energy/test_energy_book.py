"""The ledger on the disk: what was told never goes back, whatever the end of the last run was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backends import MeterSample
from agent.energy import HIGHEST_J, Counter, Ledger, Standing, Totals
from agent.energy_book import EnergyBook
from agent.meter import MeterSettings
from gridpivot.clock import Instant

pytestmark = pytest.mark.unit

WATTS = (14e6, 4e6, 1e6)
COUNTER = Counter(3600, 2**32 * 3600, 40e6, "10.0.0.5:502/1/holding/3204")
EPOCH_S = 1_760_000_000.0


class Site:
    """A site that draws 20 MW, its meter, and the file of its agent."""

    def __init__(self, path: Path) -> None:
        self.path, self.now_s, self.drawn_j, self.boot = path, 1000.0, 36_000_000, "boot-1"
        self.wall_offset_s = EPOCH_S
        self.said: list[str] = []
        self.open()

    def now(self) -> Instant:
        return Instant(self.now_s, self.now_s + self.wall_offset_s)

    def open(self, counter: Counter = COUNTER) -> None:
        self.book = EnergyBook(self.path, counter, self.now(), lambda: self.boot)

    def pass_by(self, seconds: int) -> None:
        """Nobody reads."""
        self.now_s += seconds
        self.drawn_j += 20_000_000 * seconds

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.pass_by(1)
            sample = MeterSample(20e6, self.now_s, self.drawn_j // 3600 * 3600)
            self.book.tick(sample, WATTS, self.now(), lambda text, _figures: self.said.append(text))

    @property
    def totals(self) -> Totals:
        return self.book.ledger.totals


def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "energy.json")
    made.run(1)
    return made


def test_nothing_is_told_before_it_is_on_the_disk(tmp_path: Path) -> None:
    here = site(tmp_path)
    here.run(60)
    assert here.book.message() is None
    here.book.save(here.now())
    durable = here.totals
    here.run(60)
    message = here.book.message()
    assert message is not None and message.import_j == durable.import_j < here.totals.import_j
    parts_j = message.mining_j + message.ai_j + message.overhead_j + message.unattributed_j
    assert parts_j == message.import_j and len(message.ledger_id) == 16


def test_agent_that_is_killed_loses_nothing_of_what_the_meter_counted(tmp_path: Path) -> None:
    here = site(tmp_path)
    began_j = here.drawn_j
    here.run(60)
    here.book.save(here.now())
    told, identity = here.book.message(), here.book.ledger_id
    here.run(8)  # never written
    here.pass_by(600)
    here.open()
    assert here.book.message() == told and here.book.ledger_id == identity
    here.run(1)
    assert here.totals.import_j == pytest.approx(here.drawn_j - began_j, abs=3600)
    assert here.totals.unmetered_j == 0 and here.said == []


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 4e8])
def test_clock_that_steps_over_a_reboot_costs_nothing(tmp_path: Path, step_s: float) -> None:
    here = site(tmp_path)
    began_j = here.drawn_j
    here.run(60)
    here.book.save(here.now())
    here.pass_by(600)
    here.boot, here.wall_offset_s = "boot-2", here.wall_offset_s + here.now_s - 20.0 + step_s
    here.now_s = 20.0
    here.open()
    here.run(5)
    assert here.totals.import_j == pytest.approx(here.drawn_j - began_j, abs=3600)
    assert here.said == []


def test_lost_file_is_a_new_ledger(tmp_path: Path) -> None:
    here = site(tmp_path)
    here.run(10)
    here.book.save(here.now())
    before = here.book.ledger_id
    here.path.unlink()
    here.open()
    assert here.book.ledger_id != before and here.book.message() is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_file_is_set_aside_and_said(tmp_path: Path, damage: str) -> None:
    here = site(tmp_path)
    here.run(10)
    here.book.save(here.now())
    content, before = here.path.read_bytes(), here.book.ledger_id
    here.path.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "flipped": content.replace(b'"mining_j": 1', b'"mining_j": 2', 1),
            "empty": b"",
            "other": b"\xff\x00" * 40,
        }[damage]
    )
    assert here.path.read_bytes() != content
    here.open()
    here.run(1)
    assert here.book.ledger_id != before
    assert here.said == ["energy.json was damaged, a new energy ledger begins; it is kept as energy.json.damaged"]
    assert (tmp_path / "energy.json.damaged").is_file()


def test_disk_that_refuses_holds_back_what_is_told_and_nothing_else(tmp_path: Path) -> None:
    here = site(tmp_path)
    here.run(10)
    here.book.save(here.now())
    told = here.book.message()
    (tmp_path / "energy.json.new").mkdir()  # nothing can be written beside the file
    here.run(60)
    here.book.save(here.now())
    assert here.book.message() == told and here.book.trouble is not None
    (tmp_path / "energy.json.new").rmdir()
    here.book.save(here.now())
    assert here.book.message() != told and here.book.trouble is None


def test_another_register_in_the_settings_is_another_counter(tmp_path: Path) -> None:
    here = site(tmp_path)
    here.run(10)
    here.book.save(here.now())
    booked_j = here.totals.import_j
    here.pass_by(10)
    here.open(Counter(3600, None, 40e6, "10.0.0.6:502/1/holding/3204"))
    here.run(1)
    assert here.totals.import_j == booked_j and here.totals.counter_changes == 1
    assert here.totals.unmetered_j == pytest.approx(20e6 * 10, rel=0.1)
    here.run(10)
    assert here.totals.import_j > booked_j


def test_totals_past_sixty_four_bits_are_not_told(tmp_path: Path) -> None:
    here = site(tmp_path)
    here.book.ledger = Ledger(Totals(import_j=HIGHEST_J + 1), Standing(0, 0.0, 0.0))
    here.book.save(here.now())
    assert here.book.message() is None


def test_file_is_for_nobody_else_and_says_what_it_is(tmp_path: Path) -> None:
    here = site(tmp_path)
    here.book.save(here.now())
    assert here.path.stat().st_mode & 0o077 == 0
    body = json.loads(here.path.read_text().split(" ", 1)[1])
    assert body["format"] == 1 and body["register"] == COUNTER.register


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["run", "save", "kill", "reboot"]), st.integers(1, 400)), min_size=1, max_size=20
    )
)
def test_whatever_happens_the_told_total_never_goes_back_and_ends_at_the_meter(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    here = site(tmp_path_factory.mktemp("ledger"))
    here.book.save(here.now())
    began_j, told_j, mining_j = here.drawn_j, 0, 0
    for what, number in steps:
        if what == "run":
            here.run(min(number, 30))
        elif what == "save":
            here.book.save(here.now())
        else:
            here.pass_by(number)
            if what == "reboot":
                here.boot += "+"
                here.wall_offset_s += here.now_s - 10.0
                here.now_s = 10.0
            here.open()
        message = here.book.message()
        assert message is not None
        assert message.import_j >= told_j and message.mining_j >= mining_j
        told_j, mining_j = message.import_j, message.mining_j
    here.run(2)
    here.book.save(here.now())
    message = here.book.message()
    assert message is not None and abs(message.import_j - (here.drawn_j - began_j)) <= 3600
    assert here.said == [] and message.unmetered_j == 0


@pytest.mark.parametrize(
    ("changes", "unit_j", "modulus_j"),
    [
        ({}, 3600, 2**64 * 3600),
        ({"energy_type": "uint32", "energy_unit_j": 3.6e6}, 3_600_000, 2**32 * 3_600_000),
        ({"energy_type": "int32"}, 3600, 2**31 * 3600),
        ({"energy_type": "uint16", "energy_unit_j": 0.5}, 1, 2**15),
        ({"energy_type": "float32"}, 3600, None),
        ({"energy_type": "uint32", "energy_rollover_counts": 100_000_000}, 3600, 100_000_000 * 3600),
    ],
)
def test_settings_say_where_the_counter_rolls_over(changes: dict, unit_j: int, modulus_j: int | None) -> None:
    given_ = MeterSettings.model_validate({"host": "10.0.0.5", "power_address": 1, "energy_address": 3, **changes})
    counter = given_.counter(40e6)
    assert (counter.unit_j, counter.modulus_j) == (unit_j, modulus_j)
