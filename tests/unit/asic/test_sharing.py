"""Slow replies: equal rows are kept once, and nothing else about a reply changes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.sharing import share

pytestmark = pytest.mark.unit
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)


@given(json_values)
def test_a_shared_reply_is_the_same_reply(value: Any) -> None:
    assert share(value) == value


def test_equal_rows_of_two_devices_are_one_object() -> None:
    rows = [{"Profile Name": f"{n}MHz", "Watts": 100 * n, "Hashrate": 1.5 * n} for n in range(40)]
    replies = [orjson.loads(orjson.dumps({"STATUS": [{"When": when}], "PROFILES": rows})) for when in (1, 2)]
    first, second = (share(reply) for reply in replies)
    assert all(a is b for a, b in zip(first["PROFILES"], second["PROFILES"], strict=True))
    assert first["STATUS"] != second["STATUS"]


def test_joined_replies_are_shared_too() -> None:
    joined = {"profiles": [{"PROFILES": [{"Profile Name": "default", "Watts": 3500}]}], "id": 1}
    first, second = share(orjson.loads(orjson.dumps(joined))), share(orjson.loads(orjson.dumps(joined)))
    assert first["profiles"][0]["PROFILES"][0] is second["profiles"][0]["PROFILES"][0]
