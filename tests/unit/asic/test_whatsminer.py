"""Whatsminer V2: key derivation, encryption, and what each code of an answer means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.belief import Expected, believe
from agent.asic.families.md5crypt import md5crypt_digest, md5crypt_slowly
from agent.asic.families.whatsminer import Whatsminer, decrypt, derive_token, encrypt
from agent.asic.family import ApiRequest, Dialogue, Login, Memory, Outcome, Token
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Reason

pytestmark = pytest.mark.unit
LOGIN = Login("super", "s3cret-word")
TOKEN = {"STATUS": "S", "Code": 131, "Msg": {"time": "1234", "salt": "BQ5hoXV9", "newsalt": "jbzkfQls"}}


@pytest.mark.parametrize(
    ("password", "salt", "digest"),  # from `openssl passwd -1`
    [
        ("admin", "BQ5hoXV9", "RxmaDUO33TS7O26yeMHZ81"),
        ("", "a", "8CfZSfErbeskipdhZHtvu."),
        ("a longer password, more than sixteen characters", "saltstring", "ZH8sMPz7OW7DBbR0n0lOi/"),
        ("x", "jbzkfQls", "sarrFDeE0xezelFTVNT4L1"),
    ],
)
def test_md5crypt_equals_known_vectors(password: str, salt: str, digest: str) -> None:
    assert md5crypt_digest(password, salt) == digest
    assert md5crypt_slowly(password, salt) == digest


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=30), max_size=5), st.text(min_size=1, max_size=22))
def test_encrypted_order_opens_under_the_same_key(order: dict[str, str], key: str) -> None:
    token = Token(key=key, sign="sign", expires_s=1.0)
    envelope = orjson.loads(encrypt(order, token))
    assert envelope["enc"] == 1
    assert decrypt(envelope["data"], key) == {"token": "sign", **order}


@given(st.text(max_size=100))
def test_foreign_ciphertext_is_a_bad_reply(data: str) -> None:
    with pytest.raises(BadReply):
        decrypt(data, "key")


def play(dialogue: Dialogue, answers: Sequence[Any]) -> tuple[Outcome, list[ApiRequest]]:
    """Drive a dialogue with scripted answers."""
    asked: list[ApiRequest] = []
    feed = iter(answers)
    try:
        request = next(dialogue)
        while True:
            assert isinstance(request, ApiRequest)
            asked.append(request)
            request = dialogue.send(next(feed))
    except StopIteration as stop:
        return stop.value, asked


def coded(code: int, message: str = "") -> dict[str, Any]:
    return {"STATUS": "S" if code == 131 else "E", "Code": code, "Msg": message}


def sleep(memory: Memory, answers: Sequence[Any]) -> tuple[Outcome, list[ApiRequest]]:
    return play(Whatsminer().command(Mode.SLEEP, memory, LOGIN, 0.0), answers)


@pytest.mark.parametrize(
    ("code", "reason", "retry"),
    [
        (131, Reason.NONE, False),
        (132, Reason.FAILED, True),
        (14, Reason.UNSUPPORTED, False),
        (136, Reason.REFUSED, True),
        (45, Reason.UNAUTHORISED, False),
    ],
)
def test_each_code_is_an_outcome(code: int, reason: Reason, retry: bool) -> None:
    outcome, asked = sleep(Memory(), [TOKEN, coded(code)])
    assert (outcome.reason, outcome.retry) == (reason, retry)
    assert [request.name for request in asked] == ["get_token", "power_off"]


def test_expired_token_is_renewed_once_then_the_password_is_blamed() -> None:
    memory = Memory()
    outcome, asked = sleep(memory, [TOKEN, coded(135), TOKEN, coded(131)])
    assert outcome.accepted and len(asked) == 4
    outcome, _ = sleep(Memory(), [TOKEN, coded(135), TOKEN, coded(135)])
    assert outcome.reason is Reason.UNAUTHORISED and "password" in outcome.detail


def test_token_is_kept_until_it_expires() -> None:
    memory = Memory()
    sleep(memory, [TOKEN, coded(131)])
    _, asked = sleep(memory, [coded(131)])
    assert [request.name for request in asked] == ["power_off"]
    dialogue = Whatsminer().command(Mode.SLEEP, memory, LOGIN, 1e6)
    assert next(dialogue).name == "get_token"


def test_low_wakes_a_sleeping_machine_before_it_sets_a_percentage() -> None:
    status = {"Code": 131, "Msg": {"mineroff": "true"}}
    dialogue = Whatsminer().command(Mode.LOW, Memory(), LOGIN, 0.0)
    outcome, asked = play(dialogue, [status, TOKEN, coded(131), coded(131)])
    assert outcome.accepted
    assert [request.name for request in asked] == ["status", "get_token", "power_on", "set_power_pct"]


def test_turbo_is_an_answer_not_an_exception() -> None:
    outcome, asked = play(Whatsminer().command(Mode.TURBO, Memory(), LOGIN, 0.0), [])
    assert outcome.reason is Reason.UNSUPPORTED and asked == []


def test_missing_password_is_no_credentials() -> None:
    outcome, _ = play(Whatsminer().command(Mode.SLEEP, Memory(), None, 0.0), [])
    assert outcome.reason is Reason.NO_CREDENTIALS


def test_power_limit_is_written_in_watts() -> None:
    memory = Memory()
    outcome, asked = play(Whatsminer().limit_power(3300, memory, LOGIN, 0.0), [TOKEN, coded(131)])
    assert outcome.accepted and memory.token is not None
    sent = decrypt(orjson.loads(asked[1].payload)["data"], memory.token.key)
    assert (sent["cmd"], sent["power_limit"]) == ("adjust_power_limit", "3300")


def test_token_without_salt_is_a_bad_reply() -> None:
    with pytest.raises(BadReply):
        derive_token({"time": "1"}, "x", 0.0)


def test_secrets_stay_out_of_repr() -> None:
    token = derive_token(TOKEN["Msg"], LOGIN.password, 0.0)
    shown = repr((LOGIN, token, Memory(token=token)))
    assert LOGIN.password not in shown and token.key not in shown and token.sign not in shown


def reading(summary: dict[str, Any], off: str = "false") -> Any:
    replies = {"summary": {"SUMMARY": [summary]}, "status": {"Msg": {"mineroff": off}}}
    return Whatsminer().parse(replies, Memory())


def test_hashing_machine_that_claims_zero_watts_has_unknown_power() -> None:
    assert reading({"HS RT": 1e8, "Power": 0}).power_w is None


def test_off_but_still_hashing_is_stopping() -> None:
    assert reading({"HS RT": 1e8}, "true").state is DeviceState.STOPPING
    assert reading({"HS RT": 0}, "true").state is DeviceState.SLEEPING


def test_fresh_start_without_hashing_is_waking_and_a_long_one_idle() -> None:
    assert reading({"HS RT": 0, "Elapsed": 30}).state is DeviceState.WAKING
    assert reading({"HS RT": 0, "Elapsed": 9000}).state is DeviceState.IDLE


@pytest.mark.parametrize("power", ["inf", -5, 1e9, "nan", None, True, [], {}])
def test_nonsense_power_is_unknown(power: object) -> None:
    assert believe(reading({"HS RT": 1e8, "Power": power}), Expected())[0].power_w is None


def test_refusal_instead_of_a_summary_is_a_bad_reply() -> None:
    with pytest.raises(BadReply, match="code 14"):
        Whatsminer().parse({"summary": {"STATUS": "E", "Code": 14, "Msg": "invalid cmd"}}, Memory())
