"""A stand-in BMC: Redfish over TLS with sessions and basic auth, power in the newer or the older resource, off and on.

Its resources are made up after the data model of DMTF DSP0268 and what is publicly known of vendors' BMCs; none was
recorded. It is checked by DMTF's own Python client in tests. A BMC of any vendor was not at hand when it was written.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sim.miners.web import WebAnswer, WebRequest

SYSTEM, CHASSIS = "/redfish/v1/Systems/1", "/redfish/v1/Chassis/1"
SESSIONS = "/redfish/v1/SessionService/Sessions"
Object = dict[str, Any]


@dataclass(slots=True)
class SimHost:
    """The machine behind a BMC. `ignores`: its operating system does not heed the request to shut down."""

    draw_w: Callable[[], float] = lambda: 2000.0  # while on
    standby_w: float = 60.0
    on: bool = True
    ignores: bool = False
    resets: list[str] = field(default_factory=list)

    @property
    def power_w(self) -> float:
        """At the wall now."""
        return self.draw_w() if self.on else self.standby_w

    def reset(self, reset_type: str) -> None:
        """What ComputerSystem.Reset does here; off and on take no time."""
        self.resets.append(reset_type)
        if reset_type == "GracefulShutdown" and not self.ignores:
            self.on = False
        elif reset_type == "On":
            self.on = True


class SimBmc:
    """One BMC. `newer`: EnvironmentMetrics; `older`: Power; with both it is a BMC of the years between."""

    def __init__(self, host: SimHost, *, newer: bool = True, older: bool = False) -> None:
        self.host = host
        self.username, self.password = "meter", "watts"
        self.newer, self.older = newer, older
        self.sessions: dict[str, str] = {}  # path -> token
        self.most_sessions = 8
        self.asked: list[str] = []
        self.silent = False
        self.changes: dict[str, Object | bytes | int] = {}  # by path: other fields, a raw body, or a status
        self.reset_types: tuple[str, ...] = ("On", "ForceOff", "GracefulShutdown", "ForceRestart")
        self.more: dict[str, Object] = {}  # further resources

    def web(self, request: WebRequest) -> WebAnswer | None:
        """Answer one request; None = silence."""
        self.asked.append(f"{request.method} {request.path}")
        if self.silent:
            return None
        path = request.path.rstrip("/")
        change = self.changes.get(path)
        if isinstance(change, int):
            return _refusal(change, "set from outside")
        if isinstance(change, bytes):
            return WebAnswer(change)
        if path == SESSIONS and request.method == "POST":
            return self._log_in(json.loads(request.body))
        if path != "/redfish/v1" and not self._admits(request):
            return _refusal(401, "While accessing the resource, the service received an invalid login.")
        if request.method == "DELETE" and path in self.sessions:
            del self.sessions[path]
            return WebAnswer(b"", 204)
        if request.method == "POST" and path == f"{SYSTEM}/Actions/ComputerSystem.Reset":
            return self._reset(json.loads(request.body))
        found = self._resources().get(path)
        if found is None or request.method != "GET":
            return _refusal(404, f"The resource at the URI {path} was not found.")
        return WebAnswer(json.dumps({"@odata.id": path, **found, **(change or {})}).encode())

    def _admits(self, request: WebRequest) -> bool:
        token = request.headers.get("x-auth-token")
        if token is not None:
            return token in self.sessions.values()
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {pair}"

    def _log_in(self, login: Object) -> WebAnswer:
        if (login.get("UserName"), login.get("Password")) != (self.username, self.password):
            return _refusal(401, "The authentication credentials included with this request are not valid.")
        if len(self.sessions) >= self.most_sessions:
            return _refusal(503, "The maximum number of user sessions is reached.")
        number, token = secrets.token_hex(4), secrets.token_hex(16)
        path = f"{SESSIONS}/{number}"
        self.sessions[path] = token
        headers = (("Content-Type", "application/json"), ("X-Auth-Token", token), ("Location", path))
        body = {"@odata.id": path, "Id": number, "Name": "Session", "UserName": self.username}
        return WebAnswer(json.dumps(body).encode(), 201, headers)

    def _reset(self, body: Object) -> WebAnswer:
        wanted = body.get("ResetType")
        if wanted not in self.reset_types:
            return _refusal(400, f"The value {wanted} for the parameter ResetType is not in the list of values.")
        self.host.reset(str(wanted))
        return WebAnswer(b"", 204)

    def _resources(self) -> dict[str, Object]:
        """Every resource as of now, by path without a slash at its end."""
        found: dict[str, Object] = {
            "/redfish/v1": {
                "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
                "Id": "RootService",
                "Name": "Root Service",
                "RedfishVersion": "1.17.0",
                "Systems": _ref("/redfish/v1/Systems"),
                "Chassis": _ref("/redfish/v1/Chassis"),
                "SessionService": _ref("/redfish/v1/SessionService"),
                "Links": {"Sessions": _ref(SESSIONS)},
            },
            "/redfish/v1/SessionService": {"Id": "SessionService", "Sessions": _ref(SESSIONS)},
            SESSIONS: _collection("Session", list(self.sessions)),
            "/redfish/v1/Systems": _collection("ComputerSystem", [SYSTEM]),
            "/redfish/v1/Chassis": _collection("Chassis", [CHASSIS]),
            SYSTEM: {
                "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
                "Id": "1",
                "Name": "Host",
                "SystemType": "Physical",
                "PowerState": "On" if self.host.on else "Off",
                "Links": {"Chassis": [_ref(CHASSIS)]},
                "Actions": {
                    "#ComputerSystem.Reset": {
                        "target": f"{SYSTEM}/Actions/ComputerSystem.Reset",
                        "ResetType@Redfish.AllowableValues": list(self.reset_types),
                    }
                },
            },
            CHASSIS: {
                "@odata.type": "#Chassis.v1_23_0.Chassis",
                "Id": "1",
                "Name": "Host chassis",
                "ChassisType": "RackMount",
                "Links": {"ComputerSystems": [_ref(SYSTEM)]},
            },
        }
        if self.newer:
            found[CHASSIS]["EnvironmentMetrics"] = _ref(f"{CHASSIS}/EnvironmentMetrics")
            found[f"{CHASSIS}/EnvironmentMetrics"] = environment(self.host.power_w)
        if self.older:
            found[CHASSIS]["Power"] = _ref(f"{CHASSIS}/Power")
            found[f"{CHASSIS}/Power"] = power(self.host.power_w)
        return found | self.more


def environment(watts: float | None) -> Object:
    """An EnvironmentMetrics."""
    return {
        "@odata.type": "#EnvironmentMetrics.v1_3_0.EnvironmentMetrics",
        "Id": "EnvironmentMetrics",
        "Name": "Chassis Environment Metrics",
        "PowerWatts": {"Reading": watts, "DataSourceUri": f"{CHASSIS}/Sensors/TotalPower"},
    }


def power(*watts: float | None) -> Object:
    """A Power with an entry for each figure: the whole first, as vendors have it."""
    return {
        "@odata.type": "#Power.v1_7_1.Power",
        "Id": "Power",
        "Name": "Power",
        "PowerControl": [
            {"MemberId": str(n), "Name": f"Power Control {n}", "PowerConsumedWatts": w} for n, w in enumerate(watts)
        ],
    }


def _ref(path: str) -> Object:
    return {"@odata.id": path}


def _collection(kind: str, paths: list[str]) -> Object:
    return {
        "@odata.type": f"#{kind}Collection.{kind}Collection",
        "Name": f"{kind} Collection",
        "Members@odata.count": len(paths),
        "Members": [_ref(path) for path in paths],
    }


def _refusal(status: int, message: str) -> WebAnswer:
    info = [{"MessageId": "Base.1.16.GeneralError", "Message": message}]
    body = {"error": {"code": "Base.1.16.GeneralError", "message": message, "@Message.ExtendedInfo": info}}
    return WebAnswer(json.dumps(body).encode(), status)
