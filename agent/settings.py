"""Settings of one site's agent: /etc/gridpivot/agent.toml, overridden by GRIDPIVOT_AGENT__...; see docs/agent.md."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agent.ai.commands import CommandsSettings
from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.throughput import ThroughputSettings
from agent.asic.settings import AsicSettings
from agent.bmc.settings import BmcSettings, PoolBmcSettings
from agent.coils import CoilSettings
from agent.governor.circuits import CircuitLimit
from agent.governor.state import CircuitSwitch, ContainerFans, Policy
from agent.meter import MeterSettings
from gridpivot.settings import Section
from gridpivot.vocabulary import AiPriority, Posture, Stage

NodeName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9.\-]*$")]
Address = Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$")]  # HOST:PORT
MOST_GPUS = 32  # of one node

ENV_PREFIX = "GRIDPIVOT_AGENT"
DEFAULT_CONFIG = Path("/etc/gridpivot/agent.toml")
DEFAULT_STATE = Path("/var/lib/gridpivot/agent")


class UplinkSettings(Section):
    """Where the controller is, and this site's identity. Paths relative to the state directory."""

    address: str | None = None  # host:7443; none = as enrolment wrote it down, or this site works alone
    operator_address: str | None = None  # host:7444, for coming back after expiry; none = as enrolment wrote it down
    ca: Path = Path("tls/ca.crt")
    certificate: Path = Path("tls/site.crt")
    key: Path = Path("tls/site.key")
    planner_keys: Path = Path("planner")  # directory of <key_id>.pub, Ed25519, PEM

    @property
    def managed(self) -> bool:
        """Whether key and certificate stand where enrolment puts them; elsewhere somebody else renews them."""
        own = UplinkSettings()
        return (self.ca, self.certificate, self.key) == (own.ca, own.certificate, own.key)


class CircuitSettings(Section):
    """The grid connection. Exactly one of ceiling_mw and ceiling_w."""

    ceiling_mw: float | None = Field(default=None, gt=0, le=2000)
    ceiling_w: float | None = Field(default=None, gt=0, le=2e9)
    protection_ratio: float = Field(default=1.08, gt=1.0, le=2.0)  # protection limit over the ceiling

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.ceiling_mw is None) == (self.ceiling_w is None):
            raise ValueError("give exactly one of ceiling_mw and ceiling_w")
        return self

    @property
    def watts(self) -> float:
        """Contractual ceiling [W]."""
        return self.ceiling_w if self.ceiling_w is not None else (self.ceiling_mw or 0.0) * 1e6


class GovernorSettings(Section):
    """How the site is governed; see agent/governor/state.py for what each does."""

    stage: Stage = Stage.OBSERVE
    commissioning: bool = False  # whether the stage has to be earned by a step test
    posture: Posture = Posture.HOLD
    beat_s: float = Field(default=1.0, ge=0.2, le=10)
    margin_ratio: float = Field(default=0.005, ge=0, le=0.2)
    fast_reserve_ratio: float = Field(default=0.003, ge=0, le=0.02)
    overhead_ratio: float = Field(default=0.06, ge=0, le=1)
    meter_derate_ratio: float = Field(default=0.02, ge=0, le=0.5)
    ai_release_after_s: float = Field(default=60.0, ge=0)
    wake_after_s: float = Field(default=60.0, ge=0)
    wake_interval_s: float = Field(default=5.0, ge=0)
    wake_batch_ratio: float = Field(default=0.02, gt=0, le=1)
    wake_batch_devices: int = Field(default=600, ge=0)  # 0 = no limit by count
    min_on_s: float = Field(default=120.0, ge=0)
    min_off_s: float = Field(default=30.0, ge=0)
    cycles_per_day: float = Field(default=0.0, ge=0, le=1000)  # sleeps by economics; 0 = no limit
    fans_off_after_s: float = Field(default=300.0, ge=0, le=86_400)
    still_shed_after_s: float = Field(default=60.0, ge=0, le=86_400)  # 0 = leave it to the firmware
    event_lead_s: float = Field(default=30.0, ge=0)


class CircuitLimitSettings(Section):
    """What circuits of one level bear; `name` "*" stands for all that are not named. 0 devices = no limit by count."""

    level: Literal["feeder", "container", "pdu"]
    name: str = Field(default="*", min_length=1, max_length=64)
    limit_kva: float | None = Field(default=None, gt=0, le=1e6)
    wake_kva: float | None = Field(default=None, gt=0, le=1e6)
    wake_devices: int = Field(default=0, ge=0)
    power_factor: float = Field(default=0.95, gt=0.5, le=1.0)

    def limit(self) -> CircuitLimit:
        """In watts: apparent power times the power factor."""
        watts = [
            math.inf if kva is None else kva * 1000.0 * self.power_factor for kva in (self.limit_kva, self.wake_kva)
        ]
        return CircuitLimit(self.level, self.name, watts[0], watts[1], self.wake_devices)


class FanSettings(CoilSettings):
    """Fans of one container: switched by a coil, proven by a discrete input."""

    container: str = Field(min_length=1, max_length=64)
    power_w: float = Field(default=0.0, ge=0, le=1e6)


class SwitchSettings(CoilSettings):
    """A circuit that may be opened in need, never closed: declare it only where nothing but miners hangs on it."""

    level: Literal["feeder", "container", "pdu"]
    name: str = Field(min_length=1, max_length=64)
    carries: Literal["miners_only"]


class DcgmSettings(Section):
    """GPUs read through dcgm-exporters: seen and charged, never limited."""

    urls: tuple[str, ...] = Field(min_length=1, max_length=256)
    gpus_expected: int = Field(ge=1, le=4096)
    gpu_max_w: float = Field(default=700.0, gt=0, le=5000)
    deadline_s: float = Field(default=2.0, gt=0, le=30)


class GpuPoolSettings(Section):
    """GPUs that form one AI pool, of this host or of nodes. Powers of the host are watts at the wall."""

    name: str = Field(min_length=1, max_length=64)
    priority: AiPriority = AiPriority.STANDARD
    uuids: tuple[str, ...] = ()  # empty = every GPU that no other pool names
    nodes: tuple[NodeName, ...] = Field(default=(), max_length=1024)  # every GPU of these hosts, and none of this one
    gpus_per_node: int | None = Field(default=None, ge=1, le=MOST_GPUS)  # none = as each node was last seen
    gpu_max_w: float = Field(default=700.0, gt=0, le=5000)  # of a GPU that no node has told of yet
    host_w_per_gpu: float = Field(default=400.0, ge=0, le=5000)
    defer_h: float = Field(default=24.0, gt=0, le=720)  # so long may deferrable work wait
    decode_clock_mhz: int | None = Field(
        default=None, ge=100, le=10_000
    )  # memory-bound: may be locked to it; none = never
    dcgm: DcgmSettings | None = None
    bmcs: tuple[PoolBmcSettings, ...] = Field(default=(), max_length=1024)  # of its hosts
    meter: MeterSettings | None = None
    slurm: SlurmSettings | None = None
    kubernetes: KubernetesSettings | None = None
    commands: CommandsSettings | None = None
    throughput: ThroughputSettings | None = None

    @model_validator(mode="after")
    def _one_manager(self) -> Self:
        if sum(one is not None for one in (self.slurm, self.kubernetes, self.commands)) > 1:
            raise ValueError("give one of slurm, kubernetes and commands: a pool has one workload manager")
        if sum((bool(self.nodes), bool(self.uuids), self.dcgm is not None)) > 1:
            raise ValueError("give one of nodes, uuids and dcgm: a pool's GPUs are read in one way")
        if self.decode_clock_mhz is not None and self.dcgm is not None:
            raise ValueError("decode_clock_mhz: nothing can be locked through a dcgm-exporter")
        return self

    @model_validator(mode="after")
    def _bmcs_of_its_hosts(self) -> Self:
        named = [one.node for one in self.bmcs]
        if len(set(named)) < len(named):
            raise ValueError("a host stands twice in bmcs; name each once")
        if self.bmcs and not self.nodes and self.dcgm is None:
            raise ValueError("bmcs are for hosts of `nodes` or behind `dcgm`; GPUs of this machine have [meter]")
        unknown = [name for name in named if self.nodes and name not in self.nodes]
        if unknown:
            raise ValueError(f"bmcs names {unknown[0]!r}, which is not in nodes; correct one of them")
        return self


class GpuSettings(Section):
    """GPUs through NVML."""

    pools: tuple[GpuPoolSettings, ...] = ()
    beat_s: float = Field(default=1.0, ge=0.2, le=60)
    deadline_s: float = Field(default=5.0, gt=0, le=60)
    guard_socket: Path | None = None  # gridpivot-agent gpu-guard; none = the agent sets limits itself
    guard_lease_s: float = Field(default=15.0, ge=5, le=120)
    host_power_file: Path | None = (
        None  # of a node: watts at the wall, kept fresh by a script; none = hwmon, if it tells
    )
    host_power_source: Literal["bmc", "pdu"] = "bmc"  # where the file's figure comes from


class NodesSettings(Section):
    """How GPU hosts (`role = "node"`) reach this site's agent. It listens when a pool names nodes."""

    listen: Address = "0.0.0.0:7445"  # mutual TLS: sessions, renewal
    enrol_listen: Address = "0.0.0.0:7446"  # server-only TLS: enrolment
    host: str | None = Field(default=None, min_length=1, max_length=253)  # what nodes dial; none = this machine's name
    beat_s: float = Field(default=2.0, ge=0.2, le=30)
    lease_s: float = Field(default=15.0, ge=2, le=120)
    certificate_days: float = Field(default=30.0, gt=0, le=825)


class HttpSettings(Section):
    """/metrics, /healthz, /readyz."""

    host: str = "127.0.0.1"
    port: int = Field(default=9641, ge=0, le=65_535)
    per_device_series: bool = True


class LogSettings(Section):
    """How it speaks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    style: Literal["json", "console"] = "json"


class ReportSettings(Section):
    """How often it reports [s]."""

    rollup_s: float = Field(default=2.0, ge=0.5, le=60)
    devices_s: float = Field(default=15.0, ge=1, le=600)


class AgentSettings(Section):
    """The whole file. Only `site` is needed: an agent without circuit, miners or GPUs reports its host."""

    site: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9\-]*$")
    role: Literal["site", "node"] = "site"  # node: this host's GPUs are reported to the site's agent, which governs
    node: NodeName | None = None
    state_dir: Path = DEFAULT_STATE
    uplink: UplinkSettings = UplinkSettings()
    circuit: CircuitSettings | None = None
    governor: GovernorSettings = GovernorSettings()
    asic: AsicSettings = AsicSettings()
    meter: MeterSettings | None = None
    limits: tuple[CircuitLimitSettings, ...] = ()
    fans: tuple[FanSettings, ...] = ()
    switches: tuple[SwitchSettings, ...] = ()
    gpu: GpuSettings = GpuSettings()
    bmc: BmcSettings | None = None  # of a node: its own; the site's stand in gpu.pools
    nodes: NodesSettings = NodesSettings()
    report: ReportSettings = ReportSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _acting_needs_a_ceiling(self) -> Self:
        acting = self.governor.stage in (Stage.SHED_ONLY, Stage.FULL)
        if acting and self.circuit is None:
            raise ValueError(
                'a site that commands devices needs [circuit] with its ceiling; add it, or set stage = "observe"'
            )
        return self

    @model_validator(mode="after")
    def _a_node_governs_nothing(self) -> Self:
        if self.role == "site":
            if self.node is not None:
                raise ValueError('`node` names a host of role = "node"; set the role, or drop `node`')
            if self.bmc is not None:
                raise ValueError('[bmc] belongs to a host of role = "node"; the site\'s agent has [[gpu.pools.bmcs]]')
            named = [node for pool in self.gpu.pools for node in pool.nodes]
            twice = sorted({node for node in named if named.count(node) > 1})
            if twice:
                raise ValueError(f"node {twice[0]!r} stands in two pools: all GPUs of a node are of one pool")
            return self
        if self.bmc is not None and self.gpu.host_power_file is not None:
            raise ValueError("give one of [bmc] and gpu.host_power_file: a host's power is measured in one way")
        if self.node is None:
            raise ValueError('role = "node" needs the node\'s name; add node = "gpu-001"')
        governing = {
            "circuit": self.circuit is not None,
            "asic.inventory": self.asic.inventory is not None,
            "meter": self.meter is not None,
            "gpu.pools": bool(self.gpu.pools),
            "limits": bool(self.limits),
            "fans": bool(self.fans),
            "switches": bool(self.switches),
        }
        wrong = [name for name, given in governing.items() if given]
        if wrong:
            raise ValueError(f"{wrong[0]} belongs to the site's agent, not to a node; move it there")
        return self

    def path(self, relative: Path) -> Path:
        """A file of the state directory; an absolute path stays what it is."""
        return self.state_dir / relative

    def policy(self) -> Policy:
        """The governor's policy. Without a circuit nothing is ever commanded, so the ceiling is only a number."""
        g = self.governor
        ceiling_w = self.circuit.watts if self.circuit is not None else 1e12
        protection = self.circuit.protection_ratio if self.circuit is not None else 2.0
        return Policy(
            ceiling_w=ceiling_w,
            protection_w=ceiling_w * protection,
            stage=g.stage,
            posture=g.posture,
            margin_ratio=g.margin_ratio,
            fast_reserve_ratio=g.fast_reserve_ratio,
            overhead_ratio=g.overhead_ratio,
            meter_derate_ratio=g.meter_derate_ratio,
            ai_release_after_s=g.ai_release_after_s,
            wake_after_s=g.wake_after_s,
            wake_interval_s=g.wake_interval_s,
            wake_batch_ratio=g.wake_batch_ratio,
            wake_batch_devices=g.wake_batch_devices,
            min_on_s=g.min_on_s,
            min_off_s=g.min_off_s,
            cycles_per_day=g.cycles_per_day,
            circuits=tuple(entry.limit() for entry in self.limits),
            fans=tuple(ContainerFans(fan.container, fan.power_w) for fan in self.fans),
            fans_off_after_s=g.fans_off_after_s,
            still_shed_after_s=g.still_shed_after_s,
            switches=tuple(CircuitSwitch(switch.level, switch.name) for switch in self.switches),
        )
