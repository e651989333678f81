"""What operators watch of identities: ends of certificates, enrolments, refusals, who waits for an approval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.identity.gate import Gate


class IdentityCollector(Collector):
    """Reads the gate's newest look and the counts that both ports share (`enrol_ok`, `renew_refused`, ...)."""

    def __init__(
        self, gate: Gate, enrolments: Mapping[str, int], refused: Mapping[str, int], ended: Mapping[str, int]
    ) -> None:
        self._gate, self._enrolments, self._refused, self._ended = gate, enrolments, refused, ended

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: the registry need not collect to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Four families."""
        end = GaugeMetricFamily(
            "gridpivot_site_certificate_end_timestamp_seconds",
            "End of a site's newest certificate that is not revoked (Unix time).",
            labels=("site",),
        )
        for site, not_after_ms in self._gate.site_ends().items():
            end.add_metric([site], not_after_ms / 1000.0)
        calls = CounterMetricFamily("gridpivot_enrolment_calls", "Enrolment calls.", labels=("call", "outcome"))
        for key, count in sorted(self._enrolments.items()):
            calls.add_metric(key.split("_", 1), count)
        refused = CounterMetricFamily("gridpivot_sessions_refused_by", "Sessions refused by why.", labels=("code",))
        for code, count in sorted(self._refused.items()):
            refused.add_metric([code], count)
        ended = CounterMetricFamily(
            "gridpivot_sessions_ended_by", "Live sessions ended by the controller.", labels=("code",)
        )
        for code, count in sorted(self._ended.items()):
            ended.add_metric([code], count)
        yield from (end, calls, refused, ended)
