"""Logins: the order of candidates, the back-off that locks no account, the file, and that no password ever shows."""

from __future__ import annotations

import asyncio
import io
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.conversation import Line
from agent.asic.family import Login, Memory
from agent.asic.keyring import BACK_OFF_S, MAX_WRONG, Keyring, Logins, read_logins
from agent.asic.registry import FAMILIES
from agent.asic.settings import AsicSettings
from agent.asic.transport import Endpoint
from gridpivot import observability
from gridpivot.errors import SettingsError
from gridpivot.vocabulary import Mode, Reason
from sim.miners.antminer import SimAntminer
from sim.miners.fleet import WireMiners
from sim.miners.whatsminer import SimWhatsminer

pytestmark = pytest.mark.unit

MAC = "02:00:00:00:00:01"
A, B, C, D = (Login("root", f"s3cret-{letter}") for letter in "abcd")
RIGHT = Login("root", SimAntminer.factory_password)


def test_candidates_go_from_the_particular_to_the_general_and_factory_comes_last_if_at_all() -> None:
    logins = Logins({MAC.upper(): (A,)}, {"antminer": (B, A)}, (C,))
    assert Keyring(logins).candidates("antminer", MAC) == (A, B, C)
    assert Keyring(logins).candidates("whatsminer", "") == (C,)
    assert Keyring(logins, {"antminer": D}).candidates("antminer", MAC) == (A, B, C, D)


def test_refused_login_moves_on_and_what_worked_comes_first() -> None:
    keys = Keyring(Logins(site=(A, B, C))).device("antminer")
    assert keys.login(0.0) == A
    keys.refused(A, 0.0)
    assert keys.login(1.0) == B
    keys.accepted(B)
    assert keys.login(10 * BACK_OFF_S) == B  # A is not tried again while B works
    keys.refused(B, 20 * BACK_OFF_S)
    assert keys.login(20 * BACK_OFF_S) == A


def test_known_wrong_login_waits_for_the_back_off_or_a_new_file() -> None:
    ring = Keyring(Logins(site=(A,)))
    keys = ring.device("antminer")
    keys.refused(A, 100.0)
    assert keys.login(100.0 + BACK_OFF_S - 1) is None
    assert keys.wait_s(100.0) == BACK_OFF_S
    assert keys.login(100.0 + BACK_OFF_S) == A
    keys.refused(A, 5000.0)
    ring.replace(Logins(site=(B, A)))
    assert keys.login(5001.0) == B


def test_three_refusals_in_half_an_hour_end_it_whatever_the_file_says() -> None:
    ring = Keyring(Logins(site=(A, B, C, D)))
    keys = ring.device("antminer")
    for second, login in enumerate((A, B, C)):
        keys.refused(login, float(second))
    assert keys.login(10.0) is None
    ring.replace(Logins(site=(D,)))
    assert keys.login(11.0) is None  # the device counts its own refusals and knows nothing of our file
    assert keys.login(BACK_OFF_S) == D


@given(
    waits=st.lists(st.floats(0.0, 4000.0), max_size=40),
    right=st.sampled_from([None, A, D]),
    changes=st.sets(st.integers(0, 40)),
)
def test_no_window_of_half_an_hour_ever_holds_more_than_three_wrong_tries(
    waits: list[float], right: Login | None, changes: set[int]
) -> None:
    ring = Keyring(Logins(site=(A, B, C, D)))
    keys = ring.device("antminer")
    now_s, wrong = 0.0, []
    for number, wait_s in enumerate(waits):
        now_s += wait_s
        if number in changes:
            ring.replace(Logins(site=(D, C, B, A) if number % 2 else (A, B, C, D)))
        login = keys.login(now_s)
        if login is None:
            continue
        if login == right:
            keys.accepted(login)
        else:
            wrong.append(now_s)
            keys.refused(login, now_s)
    for at_s in wrong:
        assert sum(at_s <= other < at_s + BACK_OFF_S for other in wrong) <= MAX_WRONG


def line(fleet: WireMiners, *logins: Login) -> tuple[Line, Keyring]:
    miner = fleet.miners[0]
    ring = Keyring(Logins(site=logins))
    endpoint = Endpoint(miner.host, miner.api_port, miner.http_port)
    family = FAMILIES[miner.family]
    return Line(family, endpoint, None, Memory(), 2.0, Counter(), ring.device(family.name, miner.mac)), ring


async def test_device_is_opened_by_the_second_login_and_never_asked_with_the_first_again() -> None:
    async with WireMiners(1, {"s19pro-stock": 1}) as fleet:
        way, _ = line(fleet, A, RIGHT)
        for _ in range(5):
            assert (await way.read(slow=True)).mode is Mode.NORMAL
        assert (await way.carry_out(Mode.SLEEP, 0.0)).accepted
        assert fleet.miners[0]._guard.refusals == 1  # type: ignore[attr-defined]


async def test_wrong_passwords_end_after_three_tries_with_their_word_for_polls_and_commands() -> None:
    async with WireMiners(1, {"s19pro-stock": 1}) as fleet:
        way, _ = line(fleet, A, B, C, D, RIGHT)
        for _ in range(4):
            both = await asyncio.gather(way.read(slow=True), way.carry_out(Mode.SLEEP, 0.0))
            assert both[0].reason is Reason.UNAUTHORISED and both[0].hashrate_hs
            assert both[1].reason is Reason.UNAUTHORISED and not both[1].retry
        assert "next try is in 30 min" in both[1].detail
        assert fleet.miners[0]._guard.refusals == MAX_WRONG  # type: ignore[attr-defined]
        assert fleet.miners[0].machine.mode is Mode.NORMAL


async def test_a_refused_token_moves_on_to_the_next_login_too() -> None:
    async with WireMiners(1, {"m60-whatsminer": 1}) as fleet:
        way, _ = line(fleet, A, Login("super", SimWhatsminer.factory_password))
        assert (await way.carry_out(Mode.SLEEP, 0.0)).accepted
        assert fleet.miners[0].machine.mode is Mode.SLEEP


async def test_no_login_at_all_is_no_credentials() -> None:
    async with WireMiners(1, {"s19pro-stock": 1}) as fleet:
        way, _ = line(fleet)
        assert (await way.read(slow=True)).reason is Reason.NO_CREDENTIALS
        assert (await way.carry_out(Mode.SLEEP, 0.0)).reason is Reason.NO_CREDENTIALS


# -- the file ------------------------------------------------------------------------------------------------------

FILE = """
[[site]]
username = "root"
password = "s3cret-a"
[[family.antminer]]
username = "root"
password = "s3cret-b"
[device."02:00:00:00:00:01"]
username = "root"
password = "s3cret-c"
"""


def written(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "credentials.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_file_names_site_family_and_device(tmp_path: Path) -> None:
    settings = AsicSettings.model_validate(
        {
            "credentials_file": written(tmp_path, FILE),
            "credentials": {"antminer": {"password": "s3cret-d"}, "site": {"password": "other"}},
            "try_factory_logins": True,
        }
    )
    found = settings.keyring().candidates("antminer", MAC)
    assert found == (C, B, D, A, Login("root", "other"), RIGHT)
    assert settings.keyring().candidates("whatsminer", "")[-1].username == "super"


@pytest.mark.parametrize(
    ("text", "mode", "word"),
    [
        (FILE, 0o640, "chmod 600"),
        (FILE.replace('"s3cret-b"', "s3cret-b"), 0o600, "not valid TOML"),
        (FILE.replace('"s3cret-b"', "33"), 0o600, "family antminer"),
        (FILE.replace("antminer", "toaster"), 0o600, "toaster"),
        (FILE.replace("02:00:00:00:00:01", "s3"), 0o600, "no MAC"),
        (FILE + 'token = "s3cret-x"\n', 0o600, "exactly username and password"),
        ("[rack]\n", 0o600, "unknown table"),
        ("site = 3\n", 0o600, "site"),
    ],
)
def test_bad_file_is_one_line_that_quotes_nothing_of_it(tmp_path: Path, text: str, mode: int, word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_logins(written(tmp_path, text, mode), tuple(FAMILIES))
    told = str(caught.value)
    assert word in told and "s3cret" not in told and len(told.splitlines()) == 1
    assert "s3cret" not in "".join(traceback.format_exception(caught.value)) or caught.value.__suppress_context__


def test_family_that_nobody_knows_is_told_in_settings() -> None:
    with pytest.raises(ValueError, match="did you mean 'antminer'"):
        AsicSettings.model_validate({"credentials": {"antmine": {"password": "s3cret-a"}}})


def test_every_family_of_the_registry_may_have_a_login() -> None:
    given_ = {name: {"password": "s3cret-a"} for name in FAMILIES}
    keyring = AsicSettings.model_validate({"credentials": given_}).keyring()
    assert all(keyring.candidates(name, "") for name in FAMILIES)


# -- nothing shows -------------------------------------------------------------------------------------------------


async def test_no_password_shows_in_logs_errors_reprs_outcomes_counters_or_memory_dumps(tmp_path: Path) -> None:
    stream = io.StringIO()
    observability.configure("json", stream=stream)
    log = structlog.get_logger("test")
    said: list[Any] = []
    settings = AsicSettings.model_validate({"credentials_file": written(tmp_path, FILE)})
    said += [repr(settings), settings.model_dump_json(), str(settings)]
    async with WireMiners(2, {"s19pro-stock": 1, "m60-whatsminer": 1}) as fleet:
        for miner in fleet.miners:
            family, ring = FAMILIES[miner.family], settings.keyring()
            endpoint = Endpoint(miner.host, miner.api_port, miner.http_port)
            way = Line(family, endpoint, None, Memory(), 2.0, Counter(), ring.device(family.name, MAC))
            reading = await way.read(slow=True)
            outcome = await way.carry_out(Mode.SLEEP, 0.0)
            assert outcome.reason is Reason.UNAUTHORISED
            said += [reading, outcome, way, ring, way.keys, settings.logins(), way.memory]
            log.warning("everything", line=way, keyring=ring, outcome=outcome, logins=settings.logins())
            log.warning("candidates", candidates=ring.candidates(family.name, MAC))
    text = stream.getvalue() + "".join(map(repr, said)) + "".join(map(str, said))
    assert "candidates" in text and "s3cret" not in text
