"""What Slurm's tools print, as values. Pure: text in, records out, WorkloadRefused with one line for anything else.

Written against `sinfo --json` and `squeue --json` of 22.05 (openapi v0.0.38) and `scontrol -o`, which has no JSON there. Newer
releases write numbers as {"set": true, "infinite": false, "number": 8} and states as lists; both are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.ai.slurm.hostlist import expand
from agent.ai.workload import WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

Record = TypeVar("Record")

_UNSET = (0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF)  # slurm.h: NO_VAL, INFINITE, and in 64 bits

_GPU = re.compile(r"gpu(?::(?P<kind>[A-Za-z][^:(,]*))?(?::(?P<count>[0-9]{1,9}))?(?:\([^)]*\))?")
_GPU_TRES = re.compile(r"(?:^|,)gres/gpu=([0-9]{1,9})(?:,|$)")
_TASKS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([1-9][0-9]{0,8}))?)?")


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node. `gpus` None: Slurm does not count GPUs there. `states` holds base state and flags, upper case."""

    name: str
    partitions: tuple[str, ...]
    states: frozenset[str]
    gpus: int | None
    busy_gpus: int | None
    busy_cpus: int
    reason: str
    reason_by: str

    @property
    def down(self) -> bool:
        """Whether slurmctld does not hear it, or has given it up."""
        return bool(self.states & {"DOWN", "NOT_RESPONDING", "UNKNOWN", "POWERED_DOWN", "POWERING_DOWN", "FUTURE"})

    @property
    def drained(self) -> bool:
        """Whether it takes no new work by a drain, whoever made it."""
        return bool(self.states & {"DRAIN", "DRAINING", "DRAINED"})


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job, or the waiting rest of an array. Times in Unix seconds and seconds; None = none or unknown."""

    job_id: str
    states: frozenset[str]
    partitions: tuple[str, ...]
    qos: str
    account: str
    user: str
    array_id: str
    array_task: str
    tasks: int
    nodes: tuple[str, ...]
    node_count: int
    gpus: int | None
    limit_s: float | None
    start_unix_s: float | None
    eligible_unix_s: float | None
    end_unix_s: float | None
    deadline_unix_s: float | None
    requeueable: bool
    priority: float | None
    why_waiting: str
    comment: str
    admin_comment: str

    @property
    def running(self) -> bool:
        """Whether it holds nodes: also suspended, starting and ending ones do."""
        return bool(self.states & {"RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STOPPED", "SIGNALING"})

    @property
    def leaving(self) -> bool:
        """Whether it is on its way off its nodes."""
        return "COMPLETING" in self.states

    @property
    def pending(self) -> bool:
        """Whether it waits and holds nothing."""
        return "PENDING" in self.states and not self.running

    @property
    def held(self) -> bool:
        """Whether it waits for somebody to let it go."""
        return self.pending and (self.priority == 0 or self.why_waiting in ("JobHeldUser", "JobHeldAdmin"))


@dataclass(frozen=True, slots=True)
class Reservation:
    """One reservation; ended ones stay listed for about a minute. Times in Unix seconds."""

    name: str
    nodes: tuple[str, ...]
    start_unix_s: int
    end_unix_s: int
    active: bool


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition. `up`: it starts jobs."""

    name: str
    nodes: tuple[str, ...]
    up: bool


def nodes(text: str) -> tuple[NodeRecord, ...]:
    """Nodes of `sinfo --json`."""
    return tuple(_each("sinfo --json", text, "nodes", _node))


def jobs(text: str) -> tuple[JobRecord, ...]:
    """Jobs of `squeue --json`: waiting, running, and those that ended lately."""
    return tuple(_each("squeue --json", text, "jobs", _job))


def reservations(text: str) -> tuple[Reservation, ...]:
    """Reservations of `scontrol show reservation -o` with SLURM_TIME_FORMAT=%s."""
    return tuple(
        _reservation(line) for line in text.splitlines() if line.strip() and not line.startswith("No reservations")
    )


def partition(text: str) -> Partition:
    """The one partition of `scontrol show partition NAME -o`."""
    fields = _fields(text)
    try:
        return Partition(fields["PartitionName"], expand(fields["Nodes"]), fields["State"] == "UP")
    except (KeyError, ValueError) as error:
        raise _bad("scontrol show partition", error) from None


def gpus_in(text: str) -> int | None:
    """GPUs of a gres list such as `gpu:h100:8(IDX:0-7),nvme:1`; None when it names none."""
    counts = []
    for word in re.findall(r"(?:[^,(]|\([^)]*\)?)+", text):
        found = _GPU.fullmatch(word.strip().removeprefix("gres:").removeprefix("gres/"))
        if found is not None:
            counts.append(int(found["count"] or 1))
    return sum(counts) if counts else None


def _each(what: str, text: str, key: str, read: Callable[[Mapping[str, Any]], Record]) -> Iterator[Record]:
    """Records of a document. An empty list beside an error is not an empty cluster: that is how 22.05 says unreachable."""
    try:
        document = json.loads(text)
        if document.get("errors"):
            raise ValueError(f"Slurm says {str(document['errors'][0])[:100]}")
        listed = document[key]
        if not isinstance(listed, list):
            raise ValueError(f"{key} is not a list")
        records = [read(entry) for entry in listed]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise _bad(what, error) from None
    yield from records


def _node(entry: Mapping[str, Any]) -> NodeRecord:
    return NodeRecord(
        name=_name(entry["name"]),
        partitions=tuple(_text(name) for name in entry["partitions"]),
        states=_words(entry["state"]) | _words(entry.get("state_flags", [])),
        gpus=gpus_in(_text(entry.get("gres"))),
        busy_gpus=gpus_in(_text(entry.get("gres_used"))),
        busy_cpus=_count(entry.get("alloc_cpus")),
        reason=_text(entry.get("reason")),
        reason_by=_text(entry.get("reason_set_by_user")),
    )


def _job(entry: Mapping[str, Any]) -> JobRecord:
    node_count = _count(entry.get("node_count"))
    limit_min = _number(entry.get("time_limit"))
    array_id = _count(entry.get("array_job_id"))
    task = _number(entry.get("array_task_id"))
    return JobRecord(
        job_id=str(_required(entry["job_id"])),
        states=_words(entry["job_state"]) | (_words(entry.get("flags", [])) & {"COMPLETING"}),
        partitions=tuple(_text(entry["partition"]).split(",")),
        qos=_text(entry.get("qos")),
        account=_text(entry.get("account")),
        user=_text(entry.get("user_name")),
        array_id=str(array_id) if array_id else "",
        array_task="" if task is None or not array_id else str(int(task)),
        tasks=_tasks(_text(entry.get("array_task_string"))),
        nodes=expand(_text(entry.get("nodes"))),
        node_count=node_count,
        gpus=_job_gpus(entry, node_count),
        limit_s=None if limit_min is None else limit_min * 60.0,
        start_unix_s=_number(entry.get("start_time")) or None,
        eligible_unix_s=_number(entry.get("eligible_time")) or None,
        end_unix_s=_number(entry.get("end_time")) or None,
        deadline_unix_s=_number(entry.get("deadline")) or None,
        requeueable=bool(entry.get("requeue", False)),
        priority=_number(entry.get("priority")),
        why_waiting=_text(entry.get("state_reason")),
        comment=_text(entry.get("comment")),
        admin_comment=_text(entry.get("admin_comment")),
    )


def _job_gpus(entry: Mapping[str, Any], node_count: int) -> int | None:
    """What it was given; while it waits, what it asks for. None: it names no GPUs."""
    given = [count for text in entry.get("gres_detail") or [] if (count := gpus_in(_text(text))) is not None]
    if given:
        return sum(given)
    for key in ("tres_alloc_str", "tres_req_str"):
        if found := _GPU_TRES.search(_text(entry.get(key))):
            return int(found[1])
    tasks = _count(entry.get("tasks")) or 1
    for key, times in (("tres_per_job", 1), ("tres_per_node", max(1, node_count)), ("tres_per_task", tasks)):
        if (count := gpus_in(_text(entry.get(key)))) is not None:
            return count * times
    return None


def _tasks(text: str) -> int:
    """Tasks that wait in `1-3,7,10-20:2%4`; one for a job that is no array. A list cut short by "..." counts what it shows."""
    count = 0
    for part in text.partition("%")[0].split(","):
        if (found := _TASKS.fullmatch(part)) is not None:
            first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
            count += max(0, (last - first) // step + 1)
    return max(1, count)


def _reservation(line: str) -> Reservation:
    fields = _fields(line)
    try:
        start, end = int(fields["StartTime"]), int(fields["EndTime"])
        return Reservation(fields["ReservationName"], expand(fields["Nodes"]), start, end, fields["State"] == "ACTIVE")
    except (KeyError, ValueError) as error:
        raise _bad("scontrol show reservation", error) from None


def _fields(line: str) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in line.split())}


def _number(value: Any) -> float | None:
    """A number of either shape; None where Slurm says none, unlimited or unset."""
    if isinstance(value, Mapping):
        if value.get("infinite") or not value.get("set", True):
            return None
        value = value.get("number")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"{value!r} is not a number")
    return None if value in _UNSET else float(value)


def _required(value: Any) -> int:
    number = _number(value)
    if number is None:
        raise ValueError("a number is missing")
    return int(number)


def _count(value: Any) -> int:
    return int(_number(value) or 0)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is not a text")
    return value


def _name(value: Any) -> str:
    names = expand(_text(value))
    if len(names) != 1:
        raise ValueError("a node without a name")
    return names[0]


def _words(value: Any) -> frozenset[str]:
    """One state or a list of them, upper case."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ValueError("a state that is neither a text nor a list")
    return frozenset(_text(word).upper() for word in value)


def _bad(what: str, error: Exception | str) -> WorkloadRefused:
    why = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    line = re.sub(r"[^\x20-\x7e]", "?", why)[:160]
    return WorkloadRefused(LeverOutcome.FAILED, f"{what}: cannot be understood ({line}); run it by hand")
