"""A throughput query against a real HTTP server: every answer has its word, and only a number teaches."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ai.learner import Learner
from agent.ai.lever import PoolPower
from agent.ai.throughput import Throughput, ThroughputOutcome, ThroughputSettings, figure_of
from controller.fleet.curves import learned
from gridpivot.clock import Instant
from gridpivot.curves import gpu_pool
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit


def vector(*values: Any) -> bytes:
    result = [{"metric": {"n": str(n)}, "value": [1.8e9, value]} for n, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


class Answers(BaseHTTPRequestHandler):
    """What the test wants said."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        if server.wait_s:
            time.sleep(server.wait_s)
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(server.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    made.asked, made.status, made.body, made.wait_s = [], 200, vector("1234.5"), 0.0
    made.handle_error = lambda *_: None  # a client that has given up
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def throughput(server: Any, **more: Any) -> Throughput:
    url = f"http://127.0.0.1:{server.server_port}/"
    return Throughput(ThroughputSettings(prometheus_url=url, query="sum(rate(tokens[1m]))", **more))


def ask(query: Throughput, work: str = "w") -> tuple[ThroughputOutcome, float | None]:
    async def one() -> tuple[ThroughputOutcome, float | None]:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await query.read(client, work)

    return asyncio.run(one())


def test_number_is_read_and_the_query_is_sent_whole(server: Any) -> None:
    assert ask(throughput(server)) == (ThroughputOutcome.OK, 1234.5)
    assert server.asked == ["/api/v1/query?query=sum%28rate%28tokens%5B1m%5D%29%29"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (vector(), ThroughputOutcome.EMPTY),
        (vector("1", "2"), ThroughputOutcome.SEVERAL),
        (vector("NaN"), ThroughputOutcome.NOT_A_NUMBER),
        (vector("+Inf"), ThroughputOutcome.NOT_A_NUMBER),
        (vector("0"), ThroughputOutcome.NOT_POSITIVE),
        (vector("-3"), ThroughputOutcome.NOT_POSITIVE),
        (vector(None), ThroughputOutcome.GARBLED),
        (b"<html>", ThroughputOutcome.GARBLED),
        (b'{"status": "error"}', ThroughputOutcome.GARBLED),
        (b"[" * 5000, ThroughputOutcome.GARBLED),
    ],
)
def test_what_is_not_one_positive_number_has_its_word(server: Any, body: bytes, word: ThroughputOutcome) -> None:
    server.body = body
    assert ask(throughput(server)) == (word, None)


def test_error_slow_answer_and_closed_port_have_their_words(server: Any) -> None:
    server.status = 503
    assert ask(throughput(server))[0] is ThroughputOutcome.REFUSED
    server.status, server.wait_s = 200, 2.0
    assert ask(throughput(server, deadline_s=0.2))[0] is ThroughputOutcome.SLOW
    nobody = Throughput(ThroughputSettings(prometheus_url="http://127.0.0.1:1", query="up"))
    assert ask(nobody)[0] is ThroughputOutcome.UNREACHABLE


def test_another_unit_for_the_same_work_is_a_leap_and_for_other_work_an_answer(server: Any) -> None:
    query = throughput(server)
    assert ask(query)[1] == 1234.5
    server.body = vector("1.2")
    assert ask(query) == (ThroughputOutcome.LEAP, None)
    assert ask(query, "other work") == (ThroughputOutcome.OK, 1.2)
    assert query.outcomes == {ThroughputOutcome.OK: 2, ThroughputOutcome.LEAP: 1}


@given(st.binary(max_size=300))
def test_no_answer_crashes(body: bytes) -> None:
    outcome, figure = figure_of(body)
    assert (figure is None) == (outcome is not ThroughputOutcome.OK)


class Now:
    """A clock that is set."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now(self) -> Instant:
        return Instant(self.at_s, 1.8e9 + self.at_s)


def test_learner_sets_throughput_beside_power_and_dispatch_takes_its_curve(server: Any) -> None:
    pool = gpu_pool("training", AiPriority.STANDARD, 8)
    clock = Now()
    learner = Learner(pool, 8 * 400.0, throughput(server), clock)

    def power(watts: float, limit_w: float) -> PoolPower:
        return PoolPower(clock.at_s, watts, limit_w, pool.min_w, pool.baseline_w, 8)

    async def story() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            for limit_w, watts, rate, held in ((8800.0, 8800.0, "1000", False), (6168.0, 6168.0, "970", True)):
                server.body = vector(rate)
                for _ in range(12):
                    clock.at_s += 15.0
                    learner.see(power(watts, limit_w), held, None)
                    await learner.once(client)

    asyncio.run(story())
    assert learner.curve.samples == 8  # a minute after the limits moved, and from then on
    points = learner.points()
    rollup = pb.PoolRollup(name="training", curve=points)
    curve = dict(learned(pool, rollup).curve)
    assert curve[6168.0] > dict(pool.curve).get(6168.0, 0.0)
    assert max(curve.values()) == 1.0 and all(p.throughput_sd > 0 for p in points)


def test_curve_that_is_none_leaves_the_declared_one() -> None:
    pool = gpu_pool("training", AiPriority.STANDARD, 8)
    for points in ([(5e9, 1.0)], [(6e3, 0.8), (7e3, 0.5)], [(1.0, 0.1)], [(float("nan"), 0.5), (8e3, 1.0)]):
        wire = [pb.PoolPoint(power_w=w, throughput_ratio=r) for w, r in points]
        assert learned(pool, pb.PoolRollup(curve=wire)) == pool
