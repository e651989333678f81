"""A host's share beside its GPUs: a late figure hides no step, counts none twice, and follows fans up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bmc.share import HostShare

pytestmark = pytest.mark.unit
STALE_S = 40.0


def run(share: HostShare, gpus_w: list[float], host_w: list[float], lag_s: int = 3, beat_s: int = 10) -> float | None:
    """GPUs every second; the wall every `beat_s`, as it was `lag_s` before."""
    for now, watts in enumerate(gpus_w):
        share.gpus(watts, float(now))
        if now % beat_s == 0 and now >= lag_s:
            share.take(gpus_w[now - lag_s] + host_w[now - lag_s], float(now))
    return share.share_w(float(len(gpus_w) - 1), STALE_S)


def test_share_of_gpus_that_stand_still_is_the_difference() -> None:
    assert run(HostShare(), [4000.0] * 60, [3000.0] * 60) == pytest.approx(3000.0)


def test_a_step_of_gpus_between_two_figures_does_not_move_the_share() -> None:
    gpus_w = [600.0] * 200 + [5600.0] * 4
    assert run(HostShare(), gpus_w, [3000.0] * 204) == pytest.approx(3000.0)


def test_a_load_that_never_stands_still_is_off_by_less_than_half_its_swing() -> None:
    gpus_w = [5000.0 if (n // 7) % 2 else 3000.0 for n in range(400)]
    assert run(HostShare(), gpus_w, [3000.0] * 400) == pytest.approx(3000.0, abs=1000.0)


def test_fans_that_rise_count_at_once_and_fans_that_fall_after_minutes() -> None:
    assert run(HostShare(), [4000.0] * 215, [3000.0] * 205 + [3600.0] * 10) == pytest.approx(3600.0)
    assert run(HostShare(), [4000.0] * 215, [3600.0] * 205 + [3000.0] * 10) == pytest.approx(3600.0)
    assert run(HostShare(), [4000.0] * 600, [3600.0] * 205 + [3000.0] * 395) == pytest.approx(3000.0)


def test_a_share_that_is_not_renewed_is_unknown() -> None:
    share = HostShare()
    run(share, [4000.0] * 60, [3000.0] * 60)
    assert share.share_w(90.0, STALE_S) is not None
    assert share.share_w(91.0, STALE_S) is None


def test_a_figure_without_gpus_beside_it_teaches_nothing() -> None:
    share = HostShare()
    share.take(7000.0, 10.0)
    assert share.share_w(10.0, STALE_S) is None
    share.gpus(4000.0, 20.0)
    share.gpus(None, 21.0)
    share.take(7000.0, 21.0)
    assert share.share_w(21.0, STALE_S) is None


@given(
    st.lists(st.floats(100.0, 6000.0), min_size=30, max_size=120),
    st.floats(500.0, 4000.0),
    st.integers(0, 5),
)
def test_a_share_is_never_outside_what_was_seen(gpus_w: list[float], host_w: float, lag_s: int) -> None:
    found = run(HostShare(), gpus_w, [host_w] * len(gpus_w), lag_s)
    assert found is not None
    spread_w = max(gpus_w) - min(gpus_w)
    assert host_w - spread_w - 1.0 <= found <= host_w + spread_w + 1.0
