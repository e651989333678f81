"""What lies on disk before the demo begins: identities, settings, prices, host specs. Everything in one directory."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridpivot.link.certificates import issue_server, issue_site, make_authority
from gridpivot.plan import key_id
from sim.fleet import REGIONS, SiteSpec
from sim.hostspec import HostSpec
from sim.scenario import Scenario

FLEET = "demo"
LEASE_S = 20.0
HEARTBEAT_MS = 2_000


@dataclass(frozen=True, slots=True)
class Markets:
    """Where the demo's prices come from; no file = one small file per region, written by the demo."""

    prices: Path | None
    hashprice: Path | None
    start_unix_s: float | None
    speed: float


def secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def make_identities(directory: Path, specs: list[SiteSpec]) -> None:
    """CA, controller, planner key, operator token, and a certificate per site; all made now, all for loopback."""
    now = dt.datetime.now(dt.UTC)
    authority = make_authority(FLEET, now, days=2)
    server = issue_server(authority, ["localhost", "127.0.0.1"], now, days=2)
    state = directory / "controller"
    planner = Ed25519PrivateKey.generate()
    (directory / "ca.crt").write_bytes(authority.certificate_pem)
    (state / "tls").mkdir(parents=True)
    (state / "tls" / "ca.crt").write_bytes(authority.certificate_pem)
    secret(state / "tls" / "ca.key", authority.key_pem)
    (state / "tls" / "server.crt").write_bytes(server.chain_pem)
    secret(state / "tls" / "server.key", server.key_pem)
    private = planner.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = planner.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secret(state / "planner.key", private)
    secret(state / "operator.token", secrets.token_urlsafe(32).encode() + b"\n")
    (directory / "planner").mkdir()
    (directory / "planner" / f"{key_id(planner.public_key().public_bytes_raw())}.pub").write_bytes(public)
    for spec in specs:
        own = issue_site(authority, FLEET, spec.name, now, days=2)
        place = directory / "sites" / spec.name
        secret(place / "site.key", own.key_pem)
        (place / "site.crt").write_bytes(own.chain_pem)


def price_file(directory: Path, region: str) -> Path:
    """Where the demo keeps a region's prices."""
    return directory / "prices" / f"{region}.csv"


def write_prices(path: Path, rows: list[tuple[float, float]]) -> None:
    """(Unix s, USD/MWh) rows, replaced whole: the controller may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["interval_start_utc,price_usd_per_mwh"]
    for unix_s, price in rows:
        moment = dt.datetime.fromtimestamp(unix_s, dt.UTC).isoformat(timespec="seconds")
        lines.append(f"{moment},{price:.2f}")
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join([*lines, ""]), encoding="utf-8")
    fresh.replace(path)


def write_controller_settings(directory: Path, specs: list[SiteSpec], markets: Markets) -> Path:
    """controller.toml of the demo."""
    lines = [
        f'state_dir = "{directory / "controller"}"',
        "[listen]",
        'host = "127.0.0.1"',
        "session_port = 0",
        "operator_port = 0",
        "http_port = 0",
        "[link]",
        f"heartbeat_ms = {HEARTBEAT_MS}",
        f"lease_s = {LEASE_S}",
        "fresh_s = 45.0",
        "[dispatch]",
        "period_s = 300.0",
        f"speed = {markets.speed}",
    ]
    if markets.start_unix_s is not None:
        lines.append(f"start_unix_s = {markets.start_unix_s}")
    if markets.hashprice is not None:
        lines += ["[markets]", f'hashprice_csv = "{markets.hashprice}"']
    for region, (_, base) in REGIONS.items():
        lines.append(f"[markets.regions.{region}]")
        if markets.prices is not None:
            lines.append(f'csv = "{markets.prices}"')
        else:
            lines.append(f'csv = "{price_file(directory, region)}"')
        lines.append(f"usd_per_mwh = {base}")
    for spec in specs:
        lines += [
            "[[sites]]",
            f'name = "{spec.name}"',
            f'region = "{spec.region}"',
            f"ceiling_w = {spec.ceiling_w}",
        ]
    path = directory / "controller.toml"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def write_host_specs(
    directory: Path, address: str, specs: list[SiteSpec], scenario: Scenario, hosts: int, speed: float
) -> list[Path]:
    """Deal the virtual sites round to host processes."""
    paths = []
    for number in range(hosts):
        mine = specs[number::hosts]
        if not mine:
            continue
        sites = [{"spec": asdict(s), "story": scenario.stories[s.name].to_json()} for s in mine]
        path = directory / f"host-{number}.json"
        HostSpec(address, directory, os.getpid(), speed, sites).write(path)
        paths.append(path)
    return paths


def write_agent_settings(directory: Path, spec: SiteSpec, address: str, wire: dict[str, Any]) -> Path:
    """agent.toml of the wire site: what a technician would write, with this machine's ports."""
    place = directory / "sites" / spec.name
    gpu = ["[[gpu.pools]]", 'name = "inference"', 'priority = "guaranteed"', "host_w_per_gpu = 400.0"]
    logins = []
    for family, path in wire["passwords"].items():
        logins += [f"[asic.credentials.{family}]", f'password_file = "{path}"']
    lines = [
        f'site = "{spec.name}"',
        f'state_dir = "{place / "state"}"',
        "[uplink]",
        f'address = "{address}"',
        f'ca = "{directory / "ca.crt"}"',
        f'certificate = "{place / "site.crt"}"',
        f'key = "{place / "site.key"}"',
        f'planner_keys = "{directory / "planner"}"',
        "[circuit]",
        f"ceiling_w = {wire['ceiling_w']}",
        "[governor]",
        'stage = "full"',
        "overhead_ratio = 0.06",
        "ai_release_after_s = 20.0",
        "wake_after_s = 10.0",
        "min_on_s = 30.0",
        "event_lead_s = 15.0",
        "[asic]",
        f'inventory = "{wire["inventory"]}"',
        f"beat_s = {max(2.0, wire['miners'] / 400.0):g}",  # emulated miners share two cores with forty sites
        "slow_beat_s = 20.0",
        "deadline_s = 3.0",
        *logins,
        "[meter]",
        'host = "127.0.0.1"',
        f"port = {wire['meter_port']}",
        f"power_address = {wire['power_address']}",
        'power_type = "int32"',
        f"energy_address = {wire['energy_address']}",
        'energy_type = "uint64"',
        "energy_unit_j = 3600.0",
        *(gpu if wire["gpus"] else []),
        "[http]",
        "port = 0",
        "[log]",
        'level = "info"',
    ]
    place_toml = place / "agent.toml"
    place_toml.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return place_toml


def entry(module: str, *arguments: str) -> list[str]:
    """Command line of one of our entry points in this environment."""
    return [sys.executable, "-c", f"from {module} import main; main()", *arguments]
