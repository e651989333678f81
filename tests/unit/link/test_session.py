"""One stream between a site and the controller: what arrives, what is refused, and what survives a bad link."""

import datetime as dt

import pytest

from controller.store import schema
from gridpivot.columns import DeviceTable, encode_report
from gridpivot.curves import miner_class
from gridpivot.link.certificates import make_authority
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import LinkState
from tests.unit.link.conftest import CLOCK, until

pytestmark = pytest.mark.unit

HASH = b"h" * 32


def rollup(number: int) -> pb.SiteRollup:
    return pb.SiteRollup(observed_at_unix_ms=CLOCK.now().unix_ms, metered_power_w=1e6 + number)


def signed(version: int, site: str = "falcon-1") -> plan_pb2.SignedPlan:
    plan = plan_pb2.Plan(site=site, epoch=1, version=version, valid_for_ms=20_000)
    return plan_pb2.SignedPlan(plan=plan.SerializeToString(), signature=b"s" * 64, key_id="k1")


async def test_records_made_before_the_link_was_up_arrive_once_and_in_order(centre, site) -> None:
    falcon = site()
    falcon.say("one", "two", "three")
    for number in range(5):
        falcon.send(wire.LANE_SITE, rollup(number))
    falcon.dial()
    await falcon.delivered()
    assert await centre.events() == ["one", "two", "three"]
    assert await centre.rollups() == 5
    assert (centre.store.lanes.records_repeated, centre.store.lanes.records_lost) == (0, 0)
    assert centre.fleet["falcon-1"].link is LinkState.CONNECTED
    assert falcon.uplink.state.records_acked_total == 8


async def test_record_still_on_its_way_to_the_disk_is_not_called_lost(centre, site) -> None:
    falcon = site()
    falcon.say("started")
    assert falcon.uplink._lane_range(wire.LANE_EVENTS, 1).first_seq == 1
    falcon.dial()  # hello goes out while the group commit of the record is still open
    await falcon.delivered()
    assert centre.store.lanes.records_lost == 0
    assert await centre.events() == ["started"]


async def test_controller_that_restarts_loses_nothing_and_stores_nothing_twice(centre, site) -> None:
    falcon, sent = site(), 0
    falcon.dial()
    for _ in range(2):
        await falcon.connected()
        for _ in range(40):
            falcon.send(wire.LANE_SITE, rollup(sent))
            falcon.say(f"event {sent}")
            sent += 1
        half = sent // 2
        await until(lambda half=half: falcon.uplink.state.records_acked_total > half)
        await centre.stop()
        await until(lambda: not falcon.uplink.state.connected)
        falcon.say(f"event {sent}")
        falcon.send(wire.LANE_SITE, rollup(sent))
        sent += 1
        await centre.start()
    await falcon.delivered()
    assert await centre.events() == [f"event {n}" for n in range(sent)]
    assert await centre.rollups() == sent
    assert centre.store.lanes.records_lost == 0


async def test_agent_that_restarts_goes_on_where_its_spool_stood(centre, site) -> None:
    first = site()
    first.dial()
    await first.connected()
    first.say("a", "b")
    await first.delivered()
    await first.close()
    await until(lambda: centre.fleet["falcon-1"].link is not LinkState.CONNECTED)
    second = site()
    assert second.uplink.send(wire.LANE_EVENTS, 1, b"") == 3
    second.say("c")
    second.dial()
    await second.delivered()
    assert await centre.events() == ["a", "b", "c"]
    assert centre.servicer.counters.bad_records_total == 1


async def test_second_agent_of_a_name_is_refused_while_the_first_lives_and_both_sides_say_so(centre, site) -> None:
    first = site()
    first.dial()
    await first.connected()
    second = site(directory="elsewhere")
    second.say("never")
    second.dial()
    await until(lambda: second.uplink.state.last_error)
    assert second.uplink.state.last_error.startswith("duplicate_site: ")
    assert centre.servicer.counters.refused_total == {"duplicate_site": 1}
    assert second.uplink.state.sessions_total == 0
    assert first.uplink.state.connected
    first.say("still here")
    await first.delivered()
    assert await centre.events() == ["still here"]


async def test_name_is_free_again_when_the_first_agent_has_ended(centre, site) -> None:
    first = site()
    first.dial()
    await first.connected()
    await first.close()
    await until(lambda: not centre.servicer._live)
    second = site(directory="elsewhere")
    second.dial()
    await second.connected()


@pytest.mark.parametrize(
    ("name", "certified", "word"),
    [("falcon-1", "oryx-1", "wrong_site"), ("heron-1", "heron-1", "not_enrolled")],
)
async def test_agent_that_may_not_speak_for_the_site_is_refused_with_the_word(
    centre, site, name: str, certified: str, word: str
) -> None:
    stranger = site(name, certified)
    stranger.say("lies")
    stranger.dial()
    await until(lambda: stranger.uplink.state.last_error)
    assert stranger.uplink.state.last_error.startswith(f"{word}: ")
    assert centre.servicer.counters.refused_total == {word: 1}
    assert await centre.stored(schema.site_events) == 0
    assert all(s.link is LinkState.NEVER_SEEN for s in centre.fleet)


async def test_no_client_certificate_no_session(centre, site) -> None:
    nobody = site(certified=None)
    nobody.dial()
    await until(lambda: nobody.uplink.state.last_error)
    assert nobody.uplink.state.last_error.startswith("UNAVAILABLE")
    assert centre.servicer.counters.sessions_total == 0


async def test_certificate_of_another_authority_opens_nothing(centre, site) -> None:
    other = make_authority("other", dt.datetime.now(dt.UTC))
    ours, centre.authority = centre.authority, other
    stranger = site(ca=ours.certificate_pem)
    centre.authority = ours
    stranger.dial()
    await until(lambda: stranger.uplink.state.last_error)
    assert stranger.uplink.state.sessions_total == 0
    assert centre.servicer.counters.sessions_total == 0


@pytest.mark.parametrize("patient", ["controller", "nobody"])
async def test_lost_link_is_noticed_on_either_side_by_heartbeats_and_made_good(centre, site, patient: str) -> None:
    falcon = site()
    falcon.dial()
    await falcon.connected()
    await until(lambda: falcon.beats)
    if patient == "controller":
        centre.servicer._live["falcon-1"]._watch.dead_after_s = 1e9
    centre.link.dark()
    falcon.say("while dark")
    await until(lambda: falcon.links[-1][0] is False)
    assert patient != "controller" or "nothing heard" in falcon.links[-1][1]
    await until(lambda: centre.fleet["falcon-1"].link is LinkState.SILENT)
    centre.link.light()
    await falcon.delivered()
    assert await centre.events() == ["while dark"]


async def test_quiet_link_stays_up_on_heartbeats_alone(centre, site) -> None:
    falcon = site()
    falcon.dial()
    await until(lambda: len(falcon.beats) > 2 * centre.timing.dead_after_ms / centre.timing.heartbeat_ms)
    assert falcon.uplink.state.sessions_total == 1
    assert falcon.links == [(True, "")]
    assert falcon.beats[-1].echo_monotonic_ms > 0


GARBAGE = [
    b"",
    b"not a zstd frame",
    b"\x28\xb5\x2f\xfd" + bytes(40),
]


async def test_garbage_in_a_record_is_counted_acknowledged_and_changes_nothing(centre, site) -> None:
    falcon = site()
    falcon.dial()
    for payload in GARBAGE:
        for lane, kind in ((wire.LANE_EVENTS, 1), (wire.LANE_SITE, 2), (wire.LANE_DEVICES, 3), (wire.LANE_EVENTS, 99)):
            falcon.uplink.send(lane, kind, payload)
    hostile = [
        pb.SiteRollup(plan_epoch=2**64 - 1),
        pb.Inventory(device_count=4_000_000_000, inventory_hash=HASH),
        pb.Inventory(device_count=3, inventory_hash=HASH, class_indexes=b"\x09\x09\x09"),
        pb.Inventory(device_count=1, inventory_hash=HASH, classes=[pb.MinerClass(name="x")], class_indexes=b"\x00"),
        pb.Inventory(),
    ]
    for message in hostile:
        falcon.send(wire.LANE_EVENTS, message)
    falcon.say("sane")
    await falcon.delivered()
    counters = centre.servicer.counters
    assert counters.bad_records_total >= 12 + 4
    assert await centre.events() == ["sane"]
    live = centre.fleet["falcon-1"]
    assert (live.device_count, live.rollup, live.report_at) == (0, None, None)
    assert falcon.uplink.state.sessions_total == 1


@pytest.mark.parametrize("seq", [0, 2**63, 2**64 - 1])
async def test_impossible_sequence_number_ends_that_session_and_no_commit_of_others(centre, site, seq: int) -> None:
    oryx, falcon = site("oryx-1"), site()
    for one in (oryx, falcon):
        one.dial()
        await one.connected()
    spool_fetch = falcon.uplink.spool.fetch

    def fetch(record):
        answer = spool_fetch(record)
        answer.result().seq = seq
        return answer

    falcon.uplink.spool.fetch = fetch
    falcon.say("impossible")
    oryx.say("fine")
    await until(lambda: falcon.uplink.state.last_error.startswith("protocol_error"))
    await oryx.delivered()
    assert await centre.events("oryx-1") == ["fine"]


async def test_inventory_and_table_reach_the_fleet_and_a_new_controller_knows_the_inventory(centre, site) -> None:
    falcon = site()
    falcon.dial()
    await until(lambda: falcon.inventories_wanted == 1)
    kind = miner_class("s21", "luxos", "Antminer S21", shed_s=5, wake_s=10).to_proto()
    inventory = pb.Inventory(inventory_hash=HASH, device_count=3, classes=[kind], class_indexes=bytes(3))
    falcon.send(wire.LANE_EVENTS, inventory)
    table = DeviceTable(3)
    table["power_w"][:] = 3500.0
    falcon.send(wire.LANE_DEVICES, encode_report(table, HASH, CLOCK.now().unix_ms))
    await falcon.delivered()
    assert centre.fleet["falcon-1"].device_count == 3
    await centre.stop()
    await centre.start()
    await falcon.connected()
    await until(lambda: falcon.uplink.state.sessions_total == 2)
    assert falcon.inventories_wanted == 1
    assert centre.fleet["falcon-1"].device_count == 3


async def test_plan_on_the_board_arrives_and_heartbeats_name_it(centre, site) -> None:
    centre.board.publish(signed(1), CLOCK.now())
    falcon = site()
    falcon.dial()
    await until(lambda: falcon.plans)
    assert falcon.plans == [signed(1)]
    centre.board.publish(signed(2), CLOCK.now())
    centre.board.publish(signed(1, "oryx-1"), CLOCK.now())
    await until(lambda: len(falcon.plans) == 2)
    assert falcon.plans[1] == signed(2)
    falcon.beats.clear()
    await until(lambda: len(falcon.beats) >= 2)
    assert {(b.plan_epoch, b.plan_version) for b in falcon.beats} == {(1, 2)}


async def test_status_of_a_plan_reaches_the_board(centre, site) -> None:
    centre.board.publish(signed(1), CLOCK.now())
    falcon = site()
    falcon.dial()
    status = pb.PlanStatus(epoch=1, version=1, status="applied", metered_power_w=1e6)
    falcon.send(wire.LANE_EVENTS, pb.SiteEvent(kind="plan_status", plan_status=status))
    await until(lambda: centre.board.posted("falcon-1").state == "applied")


async def test_stopping_controller_says_goodbye_and_when_to_come_back(centre, site) -> None:
    falcon = site()
    falcon.dial()
    await falcon.connected()
    await centre.stop()
    await until(lambda: falcon.uplink.state.last_error)
    assert falcon.uplink.state.last_error.startswith("shutting_down: ")
    assert falcon.links[-1] == (False, falcon.uplink.state.last_error)


async def test_records_that_the_site_thinned_do_not_hold_the_lane_and_are_counted_apart(centre, site) -> None:
    falcon = site()
    for number in range(6):
        falcon.send(wire.LANE_SITE, rollup(number))
    await until(lambda: falcon.uplink.outbox.waiting(wire.LANE_SITE) == 6)
    gone = [1, 3, 5]
    falcon.uplink.spool.delete(wire.LANE_SITE, gone)
    falcon.uplink._forget(wire.LANE_SITE, gone)
    falcon.dial()
    await falcon.delivered()
    assert await centre.rollups() == 3
    await centre.stop()
    await centre.start()
    falcon.send(wire.LANE_SITE, rollup(7))
    await until(lambda: falcon.uplink.state.sessions_total == 2)
    await falcon.delivered()
    boot = falcon.uplink.spool.opened.boot_id
    cursor = (await centre.store.acked_through("falcon-1", boot))[wire.LANE_SITE]
    assert (cursor.through_seq, cursor.also_seqs) == (7, ())
    assert centre.servicer.counters.let_go_total[wire.LANE_SITE] == 2  # 1 was let go by the first hello
    assert centre.servicer.counters.let_go_total[wire.LANE_EVENTS] == 0


async def test_spool_that_cannot_be_read_ends_the_session_and_forgets_nothing(centre, site) -> None:
    falcon = site()
    falcon.say("hard to read")
    await until(lambda: falcon.uplink.outbox.waiting(wire.LANE_EVENTS) == 1)
    falcon.uplink.spool._cache.clear()
    falcon.uplink.spool._database.execute("ALTER TABLE record RENAME TO elsewhere")
    falcon.dial()
    await until(lambda: "cannot be read" in falcon.uplink.state.last_error)
    assert falcon.uplink.waiting() >= 1
    falcon.uplink.spool._database.execute("ALTER TABLE elsewhere RENAME TO record")
    await falcon.delivered()
    assert await centre.events() == ["hard to read"]


async def test_defect_in_taking_a_plan_costs_the_session_and_not_the_agent(centre, site) -> None:
    falcon = site()

    def broken(plan) -> None:
        raise ZeroDivisionError("a defect")

    falcon.uplink._on_plan = broken
    centre.board.publish(signed(1), CLOCK.now())
    falcon.dial()
    await until(lambda: "ZeroDivisionError" in falcon.uplink.state.last_error)
    assert not falcon._task.done()


async def test_first_message_must_be_hello(centre, site) -> None:
    falcon = site()
    falcon.uplink._hello = wire.Hello  # no site: the certificate says otherwise
    falcon.dial()
    await until(lambda: falcon.uplink.state.last_error)
    assert falcon.uplink.state.last_error.startswith("wrong_site")
