"""A Whatsminer on the wire: API V2 with tokens and AES, checked as strictly as the device checks them.

The scheme is written here a second time, from the protocol's description, so that a mistake in the agent's own
encoding meets a server that does not share it: only md5crypt is common, and that is tested against known vectors.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from agent.asic.families.md5crypt import md5crypt_digest
from gridpivot.vocabulary import Mode
from sim.miners.wire import WireMiner, status

TOKEN_LIFE_S = 1800.0
FIRMWARE = "20230803.11.REL"  # before 2024-11-01: this is V2
_NAMES = {Mode.LOW: "Normal", Mode.NORMAL: "Normal"}


@dataclass(slots=True)
class _Grant:
    salt: str
    newsalt: str
    time: str
    expires_s: float


class SimWhatsminer(WireMiner):
    """Whatsminer, API V2. Replies end with the connection, without a NUL."""

    family = "whatsminer"
    terminator = b""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tokens_given = 0
        self.errors: list[dict[str, str]] = []
        self._grant: _Grant | None = None
        self._salt = secrets.token_hex(4)
        self._percent = 0
        self._limit_w = round(self.kind.modes[Mode.NORMAL].power_w)

    def expire_tokens(self) -> None:
        """Forget the token, as a reboot would."""
        self._grant = None

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Plain reads, `get_token`, and encrypted writes."""
        self.requests += 1
        if request.get("enc") == 1:
            return self._encrypted(str(request.get("data", "")))
        command = request.get("cmd", request.get("command"))
        read = getattr(self, f"_read_{command}", None) if isinstance(command, str) else None
        reply = read() if read is not None else _coded(14, "invalid cmd", "E")
        return orjson.dumps(reply)

    def _read_summary(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        megahash = round(machine.hashrate_hs(now_s) / 1e6, 2)
        power_w = machine.reported_power_w(now_s)
        row = {
            "Elapsed": machine.uptime_s(now_s),
            "Accepted": machine.accepted_shares(now_s),
            "Rejected": 0,
            "MHS 5s": megahash,
            "MHS 1m": megahash,
            "MHS av": megahash,
            "HS RT": megahash,
            "Chip Temp Max": machine.temp_c(now_s),
            "Chip Temp Avg": machine.temp_c(now_s) - 8,
            "Env Temp": 28.5,
            "Fan Speed In": 5400,
            "Fan Speed Out": 5280,
            "Power": power_w,
            "Power_RT": power_w,
            "Power Limit": self._limit_w,
            "Power Mode": _NAMES.get(machine.mode, "Normal"),
            "Factory GHS": round(self.kind.modes[Mode.NORMAL].hashrate_hs / 1e9),
            "Firmware Version": f"'{FIRMWARE}'",
            "MAC": self.mac,
            "Uptime": machine.uptime_s(now_s) + 60,
        }
        return {"STATUS": status(11, "Summary"), "SUMMARY": [row], "id": 1}

    def _read_status(self) -> dict[str, Any]:
        off = self.machine.mode is Mode.SLEEP
        return _coded(
            131,
            {
                "mineroff": "true" if off else "false",
                "mineroff_reason": "api" if off else "",
                "mineroff_time": "",
                "FirmwareVersion": FIRMWARE,
                "power_mode": "normal",
                "power_limit_set": str(self._limit_w),
                "hash_percent": str(self._percent),
            },
        )

    def _read_get_version(self) -> dict[str, Any]:
        return _coded(131, {"api_ver": "2.0.5", "fw_ver": FIRMWARE, "platform": "H616", "chip": "K88"})

    def _read_get_miner_info(self) -> dict[str, Any]:
        return _coded(131, {"hostname": "WhatsMiner", "ledstat": "auto", "mac": self.mac, "ip": self.host})

    def _read_get_psu(self) -> dict[str, Any]:
        return _coded(131, {"fan_speed": "6000", "model": "P222B", "name": "P222B", "sw_version": "230208.220429"})

    def _read_get_error_code(self) -> dict[str, Any]:
        return _coded(131, {"error_code": self.errors})

    def _read_devdetails(self) -> dict[str, Any]:
        model = self.kind.model.removeprefix("Whatsminer ")
        rows = [{"DEVDETAILS": n, "Name": "SM", "ID": n, "Driver": "bitmicro", "Model": model} for n in range(3)]
        return {"STATUS": status(69, "Device Details"), "DEVDETAILS": rows, "id": 1}

    def _read_devs(self) -> dict[str, Any]:
        now_s = self.clock()
        share = round(self.machine.hashrate_hs(now_s) / 3e6, 2)
        rows = [
            {"ASC": n, "Slot": n, "Status": "Alive", "MHS av": share, "Temperature": 65.0, "Effective Chips": 135}
            for n in range(3)
        ]
        return {"STATUS": status(9, "3 ASC(s)"), "DEVS": rows, "id": 1}

    def _read_pools(self) -> dict[str, Any]:
        alive = self.machine.pool_alive
        row = {
            "POOL": 1,
            "URL": self.machine.pool_url,
            "User": "site.worker",
            "Status": "Alive" if alive else "Dead",
            "Stratum Active": alive,
            "Accepted": self.machine.accepted_shares(self.clock()),
            "Rejected": 0,
            "Priority": 0,
        }
        return {"STATUS": status(7, "1 Pool(s)"), "POOLS": [row], "id": 1}

    def _read_get_token(self) -> dict[str, Any]:
        now_s = self.clock()
        grant = self._grant
        if grant is None or grant.expires_s <= now_s:
            grant = self._grant = _Grant(
                self._salt, secrets.token_hex(4), f"{int(now_s) % 10_000:04d}", now_s + TOKEN_LIFE_S
            )
            self.tokens_given += 1
        return _coded(131, {"time": grant.time, "salt": grant.salt, "newsalt": grant.newsalt})

    def _encrypted(self, data: str) -> bytes:
        """Open the envelope, check the signature, obey, and answer under the same key."""
        key = md5crypt_digest(self.password, self._salt)
        secret = hashlib.sha256(key.encode("ascii")).digest()
        cipher = Cipher(algorithms.AES(secret), modes.ECB())  # noqa: S305 the device's scheme
        try:
            raw = base64.b64decode(data, validate=True)
            opened = cipher.decryptor().update(raw).rstrip(b"\x00")
            order = orjson.loads(opened)
        except (binascii.Error, ValueError):
            return orjson.dumps(_coded(23, "enc json load err", "E"))
        reply = self._signed(order, key) if isinstance(order, dict) else _coded(14, "invalid cmd", "E")
        plain = orjson.dumps(reply)
        plain += b"\x00" * (-len(plain) % 16)
        return orjson.dumps({"enc": base64.b64encode(cipher.encryptor().update(plain)).decode()})

    def _signed(self, order: dict[str, Any], key: str) -> dict[str, Any]:
        grant = self._grant
        if grant is None or grant.expires_s <= self.clock():
            return _coded(135, "check token err", "E")
        if not secrets.compare_digest(str(order.get("token", "")), md5crypt_digest(key + grant.time, grant.newsalt)):
            return _coded(135, "check token err", "E")
        return self._obey(order)

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        now_s = self.clock()
        match order.get("cmd", order.get("command")):
            case "power_off":
                self.machine.command(Mode.SLEEP, now_s)
            case "power_on":
                self._percent = 0
                self.machine.command(Mode.NORMAL, now_s)
            case "set_power_pct":
                percent = str(order.get("percent", ""))
                if self.machine.mode is Mode.SLEEP or not percent.isdecimal() or not 0 <= int(percent) <= 100:
                    return _coded(132, "command error", "E")
                self._percent = int(percent) % 100
                self.machine.command(Mode.LOW if 0 < int(percent) <= 80 else Mode.NORMAL, now_s)
            case "adjust_power_limit":
                limit = str(order.get("power_limit", ""))
                if not limit.isdecimal() or not 0 < int(limit) <= 99_999:
                    return _coded(132, "command error", "E")
                self._limit_w = int(limit)
            case _:
                return _coded(14, "invalid cmd", "E")
        return _coded(131, "API command OK")


def _coded(code: int, message: Any, letter: str = "S") -> dict[str, Any]:
    return {"STATUS": letter, "When": 0, "Code": code, "Msg": message, "Description": ""}
