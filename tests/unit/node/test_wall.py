"""Hosts that measure themselves, and hosts that are off: no pool passes its limit, and nothing silent counts zero for long."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bmc.reader import BmcReader, BmcSample
from agent.bmc.settings import PoolBmcSettings
from agent.gpu.accounting import IDLE_W
from agent.nodes.hosts import PEAK_S, SILENT_S, HostShares
from tests.unit.node.site_of_nodes import HOST_W, FakeNode, Site

pytestmark = pytest.mark.unit

HOSTS_W = 16 * HOST_W


class HandBmc(BmcReader):
    """A BMC whose readings a test sets."""

    def __init__(self, site_clock, name: str) -> None:
        settings = PoolBmcSettings(node=name, url="https://bmc.example", username="u", password_file="p")  # type: ignore[arg-type]
        super().__init__(name, settings, site_clock)

    def says(self, watts: float, on: bool | None) -> None:
        self._sample = BmcSample(watts, on, self._clock.now().monotonic_s)


def site_with_bmcs(
    names: tuple[str, ...] = ("a", "b", "c", "d"),
) -> tuple[Site, dict[str, HandBmc], dict[str, FakeNode]]:
    bmcs: dict[str, HandBmc] = {}

    def make(clock):
        bmcs.update({name: HandBmc(clock, name) for name in names})
        return list(bmcs.values())

    site = Site(names, bmcs=make)
    return site, bmcs, {name: site.node(name) for name in names}


def test_a_host_that_draws_more_than_the_settings_say_leaves_its_gpus_less() -> None:
    site, _, nodes = site_with_bmcs()
    site.set_limit(HOSTS_W + 16 * 500.0)
    for node in nodes.values():
        node.take()
    for node in nodes.values():
        node.report((sum(r.power_w or 0.0 for r in node.readings()) + 2.0 * 4 * HOST_W, "bmc"))
    site.settle()
    for node in nodes.values():
        node.take()
    boards_w = sum(sum(node.limit_w.values()) for node in nodes.values())
    assert boards_w <= HOSTS_W + 16 * 500.0 - 2.0 * HOSTS_W
    assert site.reading.limit_w <= HOSTS_W + 16 * 500.0


def test_a_host_that_draws_less_than_the_settings_say_gives_its_gpus_nothing_more() -> None:
    site, _, nodes = site_with_bmcs()
    site.set_limit(HOSTS_W + 16 * 500.0)
    for node in nodes.values():
        node.take()
        node.report((sum(r.power_w or 0.0 for r in node.readings()) + 50.0, "bmc"))
    site.settle()
    for node in nodes.values():
        node.take()
    assert {w for node in nodes.values() for w in node.limit_w.values()} == {500.0}
    for node in nodes.values():
        node.report((4 * 450.0 + 50.0, "bmc"))
    assert site.reading.limit_w == pytest.approx(HOSTS_W + 16 * 500.0)
    assert site.reading.power_w == pytest.approx(16 * 450.0 + 4 * 50.0), "power is what is measured"


def test_a_measured_share_counts_for_an_hour_after_its_peak_and_a_day_after_silence() -> None:
    shares, settings_w = HostShares(1), np.array([400.0])
    assert shares.take(0, 900.0, 400.0, 0.0)
    assert not shares.take(0, 500.0, 400.0, 10.0)
    assert shares.most_w(settings_w, 10.0)[0] == 900.0
    assert shares.take(0, 500.0, 400.0, PEAK_S + 1.0)
    assert shares.most_w(settings_w, PEAK_S + 1.0)[0] == 500.0
    assert shares.most_w(settings_w, PEAK_S + 1.0 + SILENT_S)[0] == 500.0
    assert shares.most_w(settings_w, PEAK_S + 2.0 + SILENT_S)[0] == 400.0


@given(st.lists(st.tuples(st.floats(0.0, 5000.0), st.floats(0.0, 2.0 * PEAK_S)), max_size=20))
def test_the_share_for_limits_is_never_under_the_settings_nor_under_the_newest(
    steps: list[tuple[float, float]],
) -> None:
    shares, now_s = HostShares(1), 0.0
    for share_w, later_s in steps:
        now_s += later_s
        shares.take(0, share_w, 400.0, now_s)
        assert shares.most_w(np.array([400.0]), now_s)[0] >= max(400.0, share_w)


def test_a_bmc_that_the_site_asks_stands_for_a_node_that_measures_nothing() -> None:
    site, bmcs, nodes = site_with_bmcs(("a",))
    for _ in range(3):
        site.clock.s += 2.0
        nodes["a"].report()
    bmcs["a"].says(4 * 630.0 + 1500.0, True)
    nodes["a"].report()
    assert site.reading.power_w == pytest.approx(4 * 630.0 + 1500.0)
    assert site.reading.by_hosts


def test_a_node_is_charged_what_its_bmc_reads_only_while_it_says_off_and_reads_it() -> None:
    site, bmcs, nodes = site_with_bmcs()
    site.set_limit(HOSTS_W + 16 * 400.0)
    for node in nodes.values():
        node.take()
    nodes["a"].go()
    silent_w = site.reading.power_w
    assert silent_w is not None
    bmcs["a"].says(60.0, False)
    off = site.reading
    assert off.power_w == pytest.approx(silent_w - 4 * (400.0 + HOST_W) + 60.0)
    given_w = np.nansum(site.pools.table.asked_w[1:])
    assert off.limit_w == pytest.approx(HOSTS_W + given_w + 4 * IDLE_W), "a boot takes its host and idle boards"
    assert off.limit_w <= HOSTS_W + 16 * 400.0
    site.clock.s += bmcs["a"].settings.stale_s + 0.1
    for node in list(nodes.values())[1:]:
        node.report()
    stale = site.reading
    assert stale.power_w == pytest.approx(silent_w + 4 * 300.0), "limits do not outlive a power cycle: 700 W, not 400 W"
    assert stale.limit_w == pytest.approx(HOSTS_W + given_w + 4 * 700.0)


@pytest.mark.parametrize(("watts", "on"), [(60.0, True), (60.0, None), (2000.0, False)])
def test_half_a_proof_that_a_node_is_off_is_none(watts: float, on: bool | None) -> None:
    site, bmcs, nodes = site_with_bmcs()
    nodes["a"].go()
    before = site.reading
    bmcs["a"].says(watts, on)
    assert site.reading.limit_w == before.limit_w
    believed_w = watts if watts > 200.0 else 4 * (700.0 + HOST_W)
    assert before.power_w is not None
    assert site.reading.power_w == pytest.approx(before.power_w - 4 * (700.0 + HOST_W) + believed_w)


def test_a_node_that_comes_up_by_itself_is_charged_its_most_at_once_and_the_others_go_down() -> None:
    site, bmcs, nodes = site_with_bmcs()
    given_w = HOSTS_W + 16 * 500.0
    site.set_limit(given_w)
    for node in nodes.values():
        node.take()
    nodes["a"].go()
    bmcs["a"].says(60.0, False)
    assert site.reading.limit_w <= given_w
    site.settle()
    others = [nodes[name] for name in "bcd"]
    for node in others:
        node.take()
    assert {w for node in others for w in node.limit_w.values()} == {641.0}, "what it left is theirs"
    bmcs["a"].says(2400.0, True)
    assert site.reading.limit_w > given_w, "charged before anybody could have answered"
    for node in others:
        node.take()
    assert site.reading.limit_w <= given_w
    assert site.reading.power_w is not None


def test_a_node_that_is_to_come_back_wants_room_and_is_charged_before_it_comes() -> None:
    site, bmcs, nodes = site_with_bmcs()
    site.set_limit(HOSTS_W + 16 * 500.0)
    for node in nodes.values():
        node.take()
    nodes["a"].go()
    bmcs["a"].says(60.0, False)
    wall, node = site.pools.wall, nodes["a"].node
    wall.coming.add(node.index)
    comes_w, off_w = 4 * 700.0 + 4 * HOST_W - 60.0, site.reading.power_w
    assert site.reading.comes_w == pytest.approx(comes_w)
    wall.coming.discard(node.index)
    wall.waking.add(node.index)
    assert site.reading.comes_w == 0.0
    assert site.reading.power_w == pytest.approx(off_w), "it draws what it draws"
    assert site.reading.limit_w >= HOSTS_W + 4 * 700.0 + np.nansum(site.pools.table.asked_w[1:]) - 1.0


def test_fallbacks_of_the_others_do_not_grow_by_a_node_that_is_off() -> None:
    site, bmcs, nodes = site_with_bmcs()
    site.set_limit(HOSTS_W + 16 * 500.0)
    site.hold(HOSTS_W + 16 * 300.0)
    for node in nodes.values():
        node.take()
    before = [gpu.fallback_w for gpu in site.pools.limits_of(nodes["b"].node).gpus]
    nodes["a"].go()
    bmcs["a"].says(60.0, False)
    assert site.reading is not None
    site.settle()
    after = [gpu.fallback_w for gpu in site.pools.limits_of(nodes["b"].node).gpus]
    assert max(after) <= max(before), "the node keeps its own on its disk, and comes back with it"
