"""What the desk does, as metrics: promised, delivered, short, outcomes by word, work by class, why a manager is not read."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.ai.desk import PullState
from agent.ai.runner import AiDesk

_WORK = ("running_gpu_h", "pending_gpu_h", "deferrable_gpu_h")


def ai_metrics(ai: AiDesk) -> Iterator[Metric]:
    """Families of every pool with levers; what is unknown has no sample."""
    pulled = GaugeMetricFamily("gridpivot_ai_levers", "Levers in force by state", labels=["pool", "lever", "state"])
    promised = GaugeMetricFamily("gridpivot_ai_promised_watts", "By levers in force", labels=["pool"])
    delivered = GaugeMetricFamily("gridpivot_ai_delivered_watts", "Of it on the pool's meter", labels=["pool"])
    short = GaugeMetricFamily("gridpivot_ai_short_watts", "Promised by levers in force and not seen", labels=["pool"])
    trouble = GaugeMetricFamily("gridpivot_ai_workload_up", "1 while the workload manager answers", labels=["pool"])
    work = GaugeMetricFamily("gridpivot_ai_work_gpu_hours", "Work by class", labels=["pool", "priority", "kind"])
    asked = CounterMetricFamily("gridpivot_ai_throughput", "Throughput queries by word", labels=["pool", "outcome"])
    for name, side in ai.sides.items():
        desk = ai.desks[name]
        counts: dict[tuple[str, str], int] = {}
        pulls = [*desk.pulls, *side.apart()]
        for pull in pulls:
            key = (pull.lever.value, pull.state.value)
            counts[key] = counts.get(key, 0) + 1
        for (lever, state), count in counts.items():
            pulled.add_metric([name, lever, state], count)
        held = [pull for pull in pulls if pull.state is not PullState.ACTING]
        promised.add_metric([name], sum(pull.promise.promised_w for pull in pulls))
        delivered.add_metric([name], sum(min(pull.delivered_w, pull.promise.promised_w) for pull in held))
        short.add_metric([name], desk.short_w)
        if side.workload is not None:
            trouble.add_metric([name], float(side.work is not None and not side.trouble))
        for waiting in side.work.waiting if side.work is not None and not side.trouble else ():
            for kind in _WORK:
                value = getattr(waiting, kind)
                if value is not None:
                    work.add_metric([name, waiting.priority.value, kind.removesuffix("_gpu_h")], value)
        if side.learner is not None:
            for word, count in side.learner.throughput.outcomes.items():
                asked.add_metric([name, word.value], count)
    yield from (pulled, promised, delivered, short, trouble, work, asked)
    outcomes = CounterMetricFamily("gridpivot_ai_lever_outcomes", "Acts by outcome", labels=["lever", "outcome"])
    for (lever, outcome), count in ai.outcomes.items():
        outcomes.add_metric([str(lever), str(outcome)], count)
    yield outcomes
