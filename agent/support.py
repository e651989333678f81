"""What an agent's support bundle holds. Miners' logins, keys, tokens and the inventory's addresses stay at home."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from agent.settings import ENV_PREFIX, AgentSettings
from gridpivot.redaction import files_named_in, secrets_below, secrets_of_environ, secrets_of_file, secrets_of_toml
from gridpivot.support import Bundle, environment, journal, scrape, versions
from gridpivot.v1 import plan_pb2

UNITS = ("gridpivot-agent", "gridpivot-gpu-guard")
# Files of the state directory that hold no secret and tell how the site stands.
KEPT = ("status.json", "locks.json", "commission.json", "local_orders.json")


def known_secrets(settings: AgentSettings | None, config: Path | None, state_dir: Path) -> Iterator[str]:
    """Every secret that this machine's settings, files and environment hold."""
    yield from secrets_of_environ(os.environ)
    yield from secrets_below(state_dir)
    if config is not None:
        yield from secrets_of_toml(config)
        for named in files_named_in(config):
            yield from secrets_of_toml(named) if named.suffix == ".toml" else secrets_of_file(named)
    if settings is None:
        return
    asic = settings.asic
    for file in (asic.inventory, asic.credentials_file):
        if file is not None:
            yield from secrets_of_toml(file)
    for one in asic.credentials.values():
        if one.password is not None:
            yield one.password.get_secret_value()
        if one.password_file is not None:
            yield from secrets_of_file(one.password_file)
    yield from secrets_of_file(settings.path(settings.uplink.key))


def collect(settings: AgentSettings | None, config: Path | None, state_dir: Path, trouble: str) -> Bundle:
    """Everything that can be had; `settings` None and `trouble` where they cannot be read."""
    bundle = Bundle(known_secrets(settings, config, state_dir))
    bundle.tree("versions.json", versions)
    bundle.tree("environment.json", lambda: environment(ENV_PREFIX))
    if config is not None:
        bundle.text("agent.toml", lambda: config.read_text(encoding="utf-8", errors="replace"))
    if settings is not None:
        bundle.tree("settings.json", lambda: settings.model_dump(mode="json"))
        bundle.tree("doctor.json", lambda: _doctor(settings))
        bundle.text("metrics.txt", lambda: scrape(settings.http.host, settings.http.port))
    else:
        bundle.text("settings.txt", lambda: trouble)
    for name in KEPT:
        if (state_dir / name).exists():
            bundle.tree(name, lambda name=name: json.loads((state_dir / name).read_bytes()))  # type: ignore[misc]
    if (state_dir / "energy.json").exists():
        bundle.text("energy.json", lambda: (state_dir / "energy.json").read_text(encoding="utf-8"))
    if (state_dir / "plan.pb").exists():
        bundle.tree("plan.json", lambda: _plan(state_dir / "plan.pb"))
    bundle.tree("state_dir.json", lambda: _listing(state_dir))
    for unit in UNITS:
        bundle.text(f"{unit}.log", lambda unit=unit: journal(unit))  # type: ignore[misc]
    return bundle


def _doctor(settings: AgentSettings) -> Any:
    from agent.doctor import examine

    return examine(settings).model_dump(mode="json")


def _plan(path: Path) -> dict[str, Any]:
    """The plan in force; its signature stays here."""
    signed = plan_pb2.SignedPlan.FromString(path.read_bytes())
    plan = MessageToDict(plan_pb2.Plan.FromString(signed.plan), preserving_proto_field_name=True)
    return {"signed_by": signed.key_id, "plan": plan}


def _listing(state_dir: Path) -> list[dict[str, Any]]:
    """Names, sizes and modes of what lies in the state directory."""
    found = []
    for path in sorted(state_dir.rglob("*")):
        stat = path.lstat()
        found.append({"name": str(path.relative_to(state_dir)), "bytes": stat.st_size, "mode": oct(stat.st_mode)})
    return found
