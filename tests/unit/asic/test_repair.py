"""Malformed replies: each recorded form is mended by its own repair; what cannot be mended is a BadReply."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.repair import REPAIRS, parse_reply
from gridpivot.errors import BadReply

pytestmark = pytest.mark.unit

FORMS = [
    ("missing_comma", b'{"STATS":[{"a":1}{"b":2}]}', {"STATS": [{"a": 1}, {"b": 2}]}),
    ("trailing_comma", b'{"a":1,}', {"a": 1}),
    ("trailing_comma", b'{"a":[1,2,]}', {"a": [1, 2]}),
    ("leading_list_comma", b'{"a":[,{"b":1}]}', {"a": [{"b": 1}]}),
    ("control_characters", b'{"a":"x\ny\x01z"}', {"a": "x y z"}),
    ("doubled_quote", b'{"a":1,""temp0":55}', {"a": 1, "temp0": 55}),
    ("not_finite", b'{"a":inf,"b":-nan,"c":[NaN]}', {"a": None, "b": None, "c": [None]}),
    ("leading_comma", b',"id":1}', {"id": 1}),
    ("pair_in_list", b'{"error_code":["329":"2024-01-01 00:00:00"]}', {"error_code": [{"329": "2024-01-01 00:00:00"}]}),
    ("invalid_escape", rb'{"a":"it\'s"}', {"a": "it's"}),
    ("encoding", b'{"a":"caf\xe9"}', {"a": "caf\u00e9"}),
]


@pytest.mark.parametrize(("form", "data", "value"), FORMS)
def test_each_recorded_form_is_mended_and_named(form: str, data: bytes, value: object) -> None:
    mended = parse_reply(data)
    assert mended.value == value
    assert form in mended.repairs


def test_every_repair_has_a_case() -> None:
    assert set(REPAIRS) <= {form for form, _, _ in FORMS}


def test_valid_reply_is_not_touched() -> None:
    mended = parse_reply(b'{"a":"}{ ,} [,{ inf \\u0041"}\x00\x00')
    assert mended.value == {"a": "}{ ,} [,{ inf A"}
    assert mended.repairs == ()


def test_text_inside_strings_survives_repairs_outside_them() -> None:
    assert parse_reply(b'{"a":"}{ ,} : nan",}').value == {"a": "}{ ,} : nan"}


def test_several_faults_in_one_reply_are_all_mended() -> None:
    mended = parse_reply(b'{"STATS":[{"a":inf}{""b":2,}],}')
    assert mended.value == {"STATS": [{"a": None}, {"b": 2}]}
    assert {"missing_comma", "not_finite", "doubled_quote", "trailing_comma"} <= set(mended.repairs)


def test_truncated_reply_is_refused_unless_a_person_asks() -> None:
    cut = b'{"SUMMARY":[{"MHS av":5,"Power":3200,"Temper'
    with pytest.raises(BadReply):
        parse_reply(cut)
    mended = parse_reply(cut, salvage_truncated=True)
    assert mended.value == {"SUMMARY": [{"MHS av": 5, "Power": 3200}]}
    assert "truncated" in mended.repairs


@pytest.mark.parametrize("data", [b"", b"\x00", b"<html>", b"5", b'"x"', b"null", b"[" * 100_000, b"{" * 100_000])
def test_what_is_no_reply_is_a_bad_reply(data: bytes) -> None:
    with pytest.raises(BadReply):
        parse_reply(data)


def test_a_megabyte_of_open_quotes_is_refused_quickly() -> None:
    with pytest.raises(BadReply):
        parse_reply(b'{"a' * 300_000)


@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_raise_nothing_but_bad_reply(data: bytes, salvage: bool) -> None:
    try:
        value = parse_reply(data, salvage_truncated=salvage).value
    except BadReply:
        return
    assert isinstance(value, (dict, list))


@given(st.text(alphabet="{}[],\":\\'naif0123 \n\x00é", max_size=200), st.booleans())
def test_random_almost_json_raises_nothing_but_bad_reply(text: str, salvage: bool) -> None:
    try:
        parse_reply(text.encode(), salvage_truncated=salvage)
    except BadReply:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5))
def test_any_valid_object_comes_back_unchanged(value: dict[str, object]) -> None:
    data = orjson.dumps(value)
    assert parse_reply(data).value == orjson.loads(data)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5), st.integers(min_value=1, max_value=400))
def test_cut_objects_close_into_objects_or_are_refused(value: dict[str, object], keep: int) -> None:
    try:
        assert isinstance(parse_reply(orjson.dumps(value)[:keep], salvage_truncated=True).value, (dict, list))
    except BadReply:
        return
