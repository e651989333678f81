"""Braiins OS machines on the wire, three generations: GraphQL alone, GraphQL with gRPC, REST.

What is recorded stands as recorded (names of fields, numbers of states); that the whole `info` branch is null while the
mining process is stopped, and that reading by GraphQL needs no login, are assumptions.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, ClassVar

import orjson

from gridpivot.vocabulary import Mode
from sim.miners import graphql
from sim.miners.braiins_grpc import BraiinsGrpc
from sim.miners.web import WebAnswer, WebRequest
from sim.miners.wire import WireMiner, status

FAN_RPM = 5880
_HASHING = (Mode.LOW, Mode.NORMAL, Mode.TURBO)


class SimBraiins(WireMiner):
    """What the generations share: the tuner's power target, pause and resume, the cgminer port."""

    family = "braiins"
    factory_password = "root"  # noqa: S105 public knowledge
    version: ClassVar[str] = ""
    speaks_rest: ClassVar[bool] = False
    speaks_grpc: ClassVar[bool] = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.firmware = self.version
        self.target_w = round(self.kind.modes[Mode.NORMAL].power_w)
        self.tokens: set[str] = set()
        self.logins = 0
        self.process_stopped = False
        self.quick_ramping: tuple[int, int] | None = None
        self._grpc = BraiinsGrpc(self)

    async def start_aux(self, loop: asyncio.AbstractEventLoop, aux_port: int) -> None:
        """gRPC, where the generation has it."""
        if self.speaks_grpc:
            self.aux_port = await self._grpc.start(self.host, aux_port)

    async def stop(self) -> None:
        """Close every port."""
        await self._grpc.stop()
        await super().stop()

    # -- what the machine does -------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether mining is paused."""
        return self.machine.mode is Mode.SLEEP

    def login(self, username: str, password: str) -> str | None:
        """A token, None for a wrong login."""
        self.logins += 1
        if username != "root" or password != self.password:
            return None
        token = secrets.token_hex(8)
        self.tokens.add(token)
        return token

    def pause(self) -> None:
        """Pause mining."""
        self.machine.command(Mode.SLEEP, self.clock())

    def resume(self) -> None:
        """Resume at the power target."""
        self.process_stopped = False
        self.machine.command(self._target_mode(self.target_w) or Mode.NORMAL, self.clock())

    def set_target(self, watts: int) -> bool:
        """Take a power target [W]; False when it lies outside the tuner's range."""
        mode = self._target_mode(watts)
        if mode is None or watts > max(point.power_w for point in self.kind.modes.values()) + 1:
            return False
        self.target_w = watts
        if not self.paused:
            self.machine.command(mode, self.clock())
        return True

    def _target_mode(self, watts: float) -> Mode | None:
        """The machine's highest mode within the target."""
        within = [mode for mode in _HASHING if mode in self.kind.modes and self.kind.modes[mode].power_w <= watts + 1]
        return within[-1] if within else None

    # -- cgminer port ----------------------------------------------------------------------------------------------

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Single and joined reads."""
        self.requests += 1
        command = str(request.get("command", ""))
        if "+" in command:
            return orjson.dumps({**{name: [self._read(name)] for name in command.split("+")}, "id": 1})
        return orjson.dumps({**self._read(command), "id": 1})

    def _read(self, command: str) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        megahash = machine.hashrate_hs(now_s) / 1e6
        boser = "boser-buildroot 0.1.0-45f356ea"
        sections: dict[str, tuple[str, list[dict[str, Any]]]] = {
            "version": ("VERSION", [{"API": "3.7", "BOSer": boser}]),
            "summary": ("SUMMARY", [{"Elapsed": machine.uptime_s(now_s), "MHS 5s": megahash, "MHS 1m": megahash}]),
            "devs": ("DEVS", [{"ID": n, "MHS 5s": megahash / 3, "MHS 1m": megahash / 3} for n in (1, 2, 3)]),
            "devdetails": ("DEVDETAILS", [{"ID": n, "Model": self.kind.model} for n in (1, 2, 3)]),
            "tunerstatus": ("TUNERSTATUS", [{"TunerChainStatus": []}]),
        }
        if command not in sections:
            return {"STATUS": status(14, "invalid command", "E", f"BOSer {boser}")}
        section, rows = sections[command]
        return {"STATUS": status(22, command, "S", f"BOSer {boser}"), section: rows}

    # -- web server ------------------------------------------------------------------------------------------------

    def web(self, request: WebRequest) -> WebAnswer:
        """The page, GraphQL, the old interface's login and MAC, REST."""
        self.requests += 1
        if request.path == "/":
            return WebAnswer(b"<title>Braiins OS</title>", headers=(("Content-Type", "text/html"),))
        if request.path == "/graphql" and request.method == "POST":
            return self._graphql(request)
        if request.path.startswith("/cgi-bin/luci") and not self.speaks_rest:
            return self._luci(request)
        if request.path.startswith("/api/v1/") and self.speaks_rest:
            return self.rest(request)
        return WebAnswer(status=404)

    def rest(self, request: WebRequest) -> WebAnswer:
        """Answer under /api/v1."""
        return WebAnswer(status=404)

    def _luci(self, request: WebRequest) -> WebAnswer:
        if request.method == "POST":
            fields = dict(pair.partition("=")[::2] for pair in request.body.decode("latin-1").split("&"))
            token = self.login(fields.get("luci_username", ""), fields.get("luci_password", ""))
            return WebAnswer(status=403) if token is None else WebAnswer(headers=_cookie(token))
        if not self._has_session(request):
            return WebAnswer(status=403)
        return WebAnswer(orjson.dumps([{"macaddr": self.mac}]))

    def _has_session(self, request: WebRequest) -> bool:
        return request.headers.get("cookie", "").removeprefix("session_id=") in self.tokens

    def _graphql(self, request: WebRequest) -> WebAnswer:
        try:
            asked = orjson.loads(request.body)
            mutation, selection = graphql.parse(asked["query"])
            if mutation:
                return self._mutate(selection, asked.get("variables") or {}, self._has_session(request))
            return WebAnswer(orjson.dumps({"data": graphql.cut(self._tree(), selection)}))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            return _failed(f"invalid query: {error}")

    def _mutate(self, selection: graphql.Selection, variables: dict[str, Any], allowed: bool) -> WebAnswer:
        void = {"void": "void"}
        if "auth" in selection:
            token = self.login(str(variables["username"]), str(variables["password"]))
            if token is None:
                return _failed("invalid login")
            return WebAnswer(orjson.dumps({"data": {"auth": {"login": void}}}), headers=_cookie(token))
        if not allowed:
            return _failed("unauthorized")
        bosminer = selection["bosminer"]
        if "stop" in bosminer:
            self.pause()
            self.process_stopped = True
            return WebAnswer(orjson.dumps({"data": {"bosminer": {"stop": void}}}))
        if "start" in bosminer:
            self.resume()
            return WebAnswer(orjson.dumps({"data": {"bosminer": {"start": void}}}))
        assert "updateAutotuning" in bosminer["config"]
        if not self.set_target(int(next(iter(variables.values())))):
            return _failed("power target out of range")
        taken = {"autotuning": {"powerTarget": self.target_w, "enabled": True}}
        return WebAnswer(orjson.dumps({"data": {"bosminer": {"config": {"updateAutotuning": taken}}}}))

    def _tree(self) -> dict[str, Any]:
        bos = {
            "hostname": "sim",
            "faultLight": False,
            "info": {"version": {"full": self.version}},
            "uptime": {"durationS": self.machine.uptime_s(self.clock())},
        }
        points = [self.kind.modes[mode].power_w for mode in _HASHING if mode in self.kind.modes]
        limits = {"default": points[0], "min": points[0], "max": points[-1]}
        bosminer = {
            "info": None if self.process_stopped else self._info(),
            "config": {
                "autotuning": {"mode": "POWER_TARGET", "powerTarget": self.target_w, "hashrateTarget": None},
                "groups": [{"id": "0", "strategy": {"quota": 1}}],
            },
            "metadata": {"autotuning": {"powerTarget": limits}},
        }
        return {"bos": bos, "bosminer": bosminer, "events": {"appeals": []}}

    def _info(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        megahash, hot = machine.hashrate_hs(now_s) / 1e6, machine.temp_c(now_s)
        nominal = self.kind.modes[Mode.NORMAL].hashrate_hs / 1e6
        board = {
            "realHashrate": {"mhs5S": megahash / 3},
            "nominalMhs": nominal / 3,
            "hwDetails": {"chips": 110, "frequencyMhz": 420.0, "voltageV": 13.1, "hbSerialNumber": "SIMBOARD"},
            "temperatures": [{"name": "Board", "degreesC": hot - 10}, {"name": "Chip", "degreesC": hot}],
        }
        shares = {"acceptedSolutions": machine.accepted_shares(now_s), "rejectedSolutions": 0}
        pool = {
            "url": machine.pool_url,
            "user": "site.worker",
            "status": "ALIVE",
            "active": machine.pool_alive,
            "shares": shares,
        }
        return {
            "modelName": f"Bitmain {self.kind.model}",
            "fans": [{"name": str(n), "speed": 100, "rpm": FAN_RPM} for n in range(4)],
            "summary": {"power": {"limitW": self.target_w, "approxConsumptionW": int(machine.reported_power_w(now_s))}},
            "workSolver": {
                "realHashrate": {"mhs5S": megahash},
                "nominalMhs": nominal,
                "childSolvers": [{**board, "name": str(n)} for n in (6, 7, 8)],
            },
            "poolGroups": [{"name": "group", "pools": [pool]}],
        }


class SimBraiins2109(SimBraiins):
    """22.08: GraphQL alone; commands are mutations."""

    version = "2022-09-13-0-11012d53-22.08-plus"


class SimBraiins2505(SimBraiins):
    """25.05: GraphQL, and gRPC for commands."""

    version = "2025-06-25-0-45f356ea-25.05.1-plus"
    speaks_grpc = True


class SimBraiins2511(SimBraiins):
    """25.11: REST, gRPC, and GraphQL still there for whoever asks."""

    version = "2025-11-21-0-eb658dcd-25.11-plus"
    speaks_rest = True
    speaks_grpc = True

    def rest(self, request: WebRequest) -> WebAnswer:
        """Everything but the login wants a token."""
        path = request.path.removeprefix("/api/v1/")
        if path == "auth/login" and request.method == "POST":
            asked = orjson.loads(request.body)
            token = self.login(str(asked.get("username")), str(asked.get("password")))
            if token is None:
                return WebAnswer(b'{"message":"invalid login"}', 401)
            return WebAnswer(orjson.dumps({"token": token, "timeout_s": 3600}))
        if request.headers.get("authorization") not in self.tokens:
            return WebAnswer(b'{"message":"unauthorized"}', 401)
        if request.method == "PUT":
            return self._put(path, request.body)
        read = getattr(self, f"_get_{path.replace('/', '_').replace('-', '_')}", None)
        return WebAnswer(status=404) if read is None else WebAnswer(orjson.dumps(read()))

    def _put(self, path: str, body: bytes) -> WebAnswer:
        if path == "actions/pause":
            already = self.paused
            self.pause()
            return WebAnswer(orjson.dumps(already))
        if path == "actions/resume":
            already = not self.paused
            self.resume()
            return WebAnswer(orjson.dumps(already))
        if path == "performance/power-target":
            if not self.set_target(int(orjson.loads(body)["watt"])):
                return WebAnswer(b'{"message":"out of range"}', 400)
            return WebAnswer(orjson.dumps({"watt": self.target_w}))
        return WebAnswer(status=404)

    def _get_version(self) -> dict[str, Any]:
        return {"major": 1, "minor": 1, "patch": 0}

    def _get_network(self) -> dict[str, Any]:
        return {"hostname": "sim", "mac_address": self.mac.lower(), "name": "eth0", "networks": [], "protocol": 1}

    def _get_actions_locate(self) -> bool:
        return False

    def _get_miner_details(self) -> dict[str, Any]:
        now_s = self.clock()
        return {
            "bos_version": {"bos_plus": True, "current": self.version, "major": self.version},
            "bosminer_uptime_s": self.machine.uptime_s(now_s),
            "system_uptime_s": self.machine.uptime_s(now_s),
            "control_board_soc_family": 1,
            "hostname": "sim",
            "mac_address": self.mac.lower(),
            "miner_identity": {"brand": 1, "miner_model": self.kind.model, "name": self.kind.model},
            "serial_number": "SIMSERIAL",
            "status": 3 if self.paused else 2,
            "sticker_hashrate": {"gigahash_per_second": self.kind.modes[Mode.NORMAL].hashrate_hs / 1e9},
        }

    def _get_miner_stats(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        rate = {"gigahash_per_second": machine.hashrate_hs(now_s) / 1e9}
        watts = {"watt": int(machine.reported_power_w(now_s))}
        return {
            "miner_stats": {"nominal_hashrate": rate, "real_hashrate": {"last_5s": rate, "last_1m": rate}},
            "pool_stats": {"accepted_shares": machine.accepted_shares(now_s), "rejected_shares": 0},
            "power_stats": {"approximated_consumption": watts},
        }

    def _get_cooling_state(self) -> dict[str, Any]:
        hot = {"degree_c": self.machine.temp_c(self.clock())}
        return {
            "fans": [{"position": n, "rpm": FAN_RPM, "target_speed_ratio": 1.0} for n in range(4)],
            "highest_temperature": {"id": None, "location": 1, "temperature": hot},
        }

    def _get_performance_tuner_state(self) -> dict[str, Any]:
        state = {"powertargetmodestate": {"current_target": {"watt": self.target_w}}}
        return {"mode_state": state, "overall_tuner_state": 2}

    def _get_configuration_miner(self) -> dict[str, Any]:
        tuner = {"enabled": True, "hashrate_target": None, "power_target": {"watt": self.target_w}, "tuner_mode": 1}
        return {"pool_groups": [], "tuner": tuner}

    def _get_configuration_constraints(self) -> dict[str, Any]:
        return {"tuner_constraints": {}}

    def _get_pools(self) -> list[Any]:
        stats = {"accepted_shares": self.machine.accepted_shares(self.clock()), "rejected_shares": 0}
        pool = {
            "active": True,
            "alive": True,
            "enabled": True,
            "stats": stats,
            "uid": "p",
            "url": self.machine.pool_url,
            "user": "u.w",
        }
        return [{"name": "group", "pools": [pool], "strategy": {"quota": {"value": 1}}, "uid": "0"}]

    def _get_miner_errors(self) -> dict[str, Any]:
        return {"errors": []}

    def _get_miner_hw_hashboards(self) -> dict[str, Any]:
        now_s = self.clock()
        rate = {"gigahash_per_second": self.machine.hashrate_hs(now_s) / 3e9}
        hot = {"id": 1, "location": 1, "temperature": {"degree_c": self.machine.temp_c(now_s)}}
        boards = [
            {
                "id": str(n),
                "enabled": True,
                "chips_count": 110,
                "board_temp": {"degree_c": 56.5},
                "highest_chip_temp": hot,
                "serial_number": f"SIMBOARD{n}",
                "stats": {"nominal_hashrate": rate, "real_hashrate": {"last_5s": rate}},
            }
            for n in (1, 2, 3)
        ]
        return {"hashboards": boards}


def _cookie(token: str) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", "application/json"), ("Set-Cookie", f"session_id={token}; Path=/; HttpOnly"))


def _failed(told: str) -> WebAnswer:
    return WebAnswer(orjson.dumps({"data": None, "errors": [{"message": told}]}))
