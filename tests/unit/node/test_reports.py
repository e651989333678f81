"""What nodes say: unknown stays unknown, and nonsense is refused whole."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gpu.reading import GpuReading
from agent.node.report import boards, report
from agent.nodes.reports import BOUNDS, read_boards, read_report
from gridpivot.errors import BadReport
from gridpivot.v1 import node_pb2 as pb

pytestmark = pytest.mark.unit


def told(readings: list[GpuReading], host: tuple[float, str] | None = None) -> pb.NodeReport:
    return pb.NodeReport.FromString(report(readings, 1, 0, 1000, 5000, host).SerializeToString())


@given(st.lists(st.one_of(st.none(), st.floats(0.0, 1500.0, width=32)), min_size=1, max_size=32))
def test_unknown_figures_stay_unknown_over_the_wire(powers: list[float | None]) -> None:
    readings = [GpuReading(f"GPU-{n}", power_w=watts, lost=watts is None) for n, watts in enumerate(powers)]
    found = read_report(told(readings), len(powers))
    expected = np.array([math.nan if watts is None else watts for watts in powers])
    np.testing.assert_array_equal(found.column("power_w"), expected)
    assert found.lost.tolist() == [watts is None for watts in powers]
    assert np.isnan(found.column("temp_c")).all(), "nobody told it"


def test_every_figure_of_a_reading_arrives() -> None:
    full = GpuReading(
        "GPU-a",
        power_w=500.0,
        energy_j=123456.0,
        limit_requested_w=600.0,
        limit_enforced_w=550.0,
        util_ratio=0.5,
        temp_c=61.0,
        memory_used_bytes=70 * 2**30,
        memory_total_bytes=80 * 2**30,
        clock_event_reasons=0x24,
        sm_clock_hz=1.98e9,
        memory_clock_hz=2.6e9,
    )
    found = read_report(told([full], (6200.0, "pdu")), 1)
    for name in BOUNDS:
        assert found.column(name)[0] == pytest.approx(getattr(full, name), rel=1e-6), name
    assert found.throttled_by_power.tolist() == [True]
    assert (found.host_power_w, found.host_power_source) == (6200.0, "pdu")
    assert (found.sequence, found.observed_at_unix_ms, found.monotonic_ms) == (1, 1000, 5000)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e12])
@pytest.mark.parametrize("name", ["power_w", "limit_enforced_w", "limit_requested_w", "util_ratio", "sm_clock_hz"])
def test_absurd_figures_are_refused_with_their_name(name: str, value: float) -> None:
    message = pb.NodeReport(sequence=1)
    getattr(message, name).values.extend([100.0 if name != "util_ratio" else 0.5, value])
    with pytest.raises(BadReport, match=name):
        read_report(message, 2)


@pytest.mark.parametrize("watts", [math.nan, math.inf, -1.0, 1e7])
def test_absurd_host_power_is_refused(watts: float) -> None:
    with pytest.raises(BadReport, match="host_power_w"):
        read_report(pb.NodeReport(sequence=1, host_power_w=watts, host_power_source=pb.HOST_POWER_SOURCE_BMC), 1)


def test_host_power_that_does_not_say_where_it_comes_from_is_refused() -> None:
    with pytest.raises(BadReport, match="source"):
        read_report(pb.NodeReport(sequence=1, host_power_w=5000.0), 1)


def test_columns_and_bitmaps_of_another_length_are_refused() -> None:
    for message in (
        pb.NodeReport(power_w=pb.GpuFigures(values=[1.0])),
        pb.NodeReport(power_w=pb.GpuFigures(values=[1.0, 2.0], known=b"\x03\x00")),
        pb.NodeReport(lost=b"\x00\x00"),
        pb.NodeReport(energy_j=pb.GpuCounts(values=[1, 2, 3])),
    ):
        with pytest.raises(BadReport):
            read_report(message, 2)


def test_boards_arrive_and_those_that_make_no_sense_are_refused() -> None:
    readings = [
        GpuReading("GPU-a", "H100", limit_min_w=200.0, limit_max_w=700.0, limit_default_w=700.0),
        GpuReading("GPU-b"),
    ]
    first, second = read_boards(boards(readings))
    assert (first.limit_min_w, first.limit_max_w, second.limit_min_w) == (200.0, 700.0, None)
    for bad in (
        [],
        [pb.NodeGpu(uuid="")],
        [pb.NodeGpu(uuid="a"), pb.NodeGpu(uuid="a")],
        [pb.NodeGpu(uuid="a", limit_max_w=math.nan)],
        [pb.NodeGpu(uuid="a", limit_max_w=-5.0)],
        [pb.NodeGpu(uuid="a", limit_min_w=700.0, limit_max_w=200.0)],
        [pb.NodeGpu(uuid="x" * 200)],
        [pb.NodeGpu(uuid=str(n)) for n in range(33)],
    ):
        with pytest.raises(BadReport):
            read_boards(bad)
