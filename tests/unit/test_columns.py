"""A device table survives the wire: every value within half a step, missing stays missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gridpivot.columns import (
    BY_NAME,
    COLUMNS,
    Column,
    DeviceTable,
    decode_column,
    decode_report,
    encode_column,
    encode_report,
)
from gridpivot.errors import BadReport
from gridpivot.v1 import telemetry_pb2 as pb

pytestmark = pytest.mark.unit


def values_of(column: Column) -> st.SearchStrategy[np.ndarray]:
    if not column.missing:
        return hnp.arrays(np.dtype(column.dtype), st.integers(0, 50))
    highest = (column.sentinel - 1) * column.step
    width = np.dtype(column.dtype).itemsize * 8
    limit = float(np.float32(highest)) if width == 32 else highest
    inside = st.floats(0, min(limit, highest), width=width) if limit <= highest else st.floats(0, highest * 0.999)
    return hnp.arrays(np.float64, st.integers(0, 50), elements=st.one_of(inside, st.just(float("nan")))).map(
        lambda a: a.astype(column.dtype)
    )


@pytest.mark.parametrize("column", COLUMNS, ids=lambda c: c.name)
@given(st.data())
def test_round_trip_keeps_every_value_within_half_a_step(column: Column, data: st.DataObject) -> None:
    values = data.draw(values_of(column))
    back = decode_column(column, encode_column(column, values), len(values))
    assert back.dtype == np.dtype(column.dtype)
    if not column.missing:
        np.testing.assert_array_equal(back, values)
        return
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    known = ~np.isnan(values)
    # Half a step for the wire, and the rounding of float32 itself.
    allowed = column.step * 0.5 + np.abs(values[known].astype(np.float64)) * 2.0**-22
    assert (np.abs(back[known].astype(np.float64) - values[known]) <= allowed).all()


@pytest.mark.parametrize("column", [c for c in COLUMNS if c.missing], ids=lambda c: c.name)
def test_value_out_of_range_is_clamped_and_never_read_as_missing(column: Column) -> None:
    wild = np.array([-5.0, 1e30, np.inf, -np.inf], dtype=column.dtype)
    back = decode_column(column, encode_column(column, wild), 4)
    assert not np.isnan(back).any()
    assert back[0] == back[3] == 0


def test_numbers_and_names_are_unique() -> None:
    assert len({c.number for c in COLUMNS}) == len({c.name for c in COLUMNS}) == len(COLUMNS)


def test_whole_report_round_trips_and_unknown_columns_are_skipped() -> None:
    table = DeviceTable(7)
    table["power_w"][:] = 3250.0
    report = encode_report(table, b"h", 1)
    report.columns.add(number=200, values=b"from a newer agent")
    decoded = decode_report(report, 7)
    assert set(decoded) == set(BY_NAME)
    assert (decoded["power_w"] == 3250.0).all()
    assert np.isnan(decoded["temp_c"]).all()


def test_report_that_contradicts_itself_is_refused() -> None:
    report = encode_report(DeviceTable(7), b"h", 1)
    with pytest.raises(BadReport, match="7 rows, the inventory 8"):
        decode_report(report, 8)
    report.columns.add().CopyFrom(report.columns[0])
    with pytest.raises(BadReport, match="power_w twice"):
        decode_report(report, 7)


@given(st.binary(max_size=300))
def test_hostile_bytes_are_a_bad_report_or_values_never_anything_else(raw: bytes) -> None:
    report = pb.DeviceReport(device_count=7, columns=[pb.Column(number=n, values=raw) for n in (1, 4, 10)])
    try:
        decoded = decode_report(report, 7)
    except BadReport:
        return
    assert all(len(values) == 7 for values in decoded.values())
