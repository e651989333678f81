"""When a link is due a word, when it is dead, how long to wait before dialling again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.link.heartbeat import LinkWatch, backoff_s

pytestmark = pytest.mark.unit


def test_link_is_dead_only_after_the_whole_silence() -> None:
    watch = LinkWatch(heartbeat_s=2.0, dead_after_s=6.0, last_heard_s=100.0)
    assert not watch.dead(106.0)
    assert watch.dead(106.1)
    watch.heard(106.2)
    assert not watch.dead(112.0)


def test_late_news_does_not_make_the_link_look_older() -> None:
    watch = LinkWatch(2.0, 6.0, last_heard_s=100.0)
    watch.heard(99.0, peer_monotonic_ms=5)
    assert watch.last_heard_s == 100.0
    assert watch.peer_monotonic_ms == 5


def test_heartbeat_is_due_at_once_and_then_at_its_beat() -> None:
    watch = LinkWatch(2.0, 6.0, last_heard_s=0.0)
    said = [second / 2 for second in range(13) if watch.due(second / 2)]
    assert said == [0.0, 2.0, 4.0, 6.0]


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pause_before_dialling_grows_spreads_and_stays_bounded(attempt: int, jitter: float) -> None:
    pause_s = backoff_s(attempt, jitter)
    assert 0.25 <= pause_s <= 15.0
    assert backoff_s(attempt + 1, jitter) >= pause_s
    assert backoff_s(attempt, 0.0) <= pause_s
