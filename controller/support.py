"""What a controller's support bundle holds. The database, the CA, keys and tokens stay at home."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, func, select

from controller.settings import ENV_PREFIX, ControllerSettings
from controller.store import schema
from gridpivot.redaction import (
    files_named_in,
    secrets_below,
    secrets_of_environ,
    secrets_of_file,
    secrets_of_toml,
    secrets_of_tree,
)
from gridpivot.support import Bundle, environment, journal, scrape, versions

UNIT = "gridpivot-controller"


def known_secrets(settings: ControllerSettings | None, config: Path | None, state_dir: Path) -> Iterator[str]:
    """Every secret that this machine's settings, files and environment hold."""
    yield from secrets_of_environ(os.environ)
    yield from secrets_below(state_dir)
    if config is not None:
        yield from secrets_of_toml(config)
        for named in files_named_in(config):
            yield from secrets_of_file(named)
    if settings is None:
        return
    tls = settings.tls
    for path in (tls.key, tls.planner_key, tls.ca.with_suffix(".key"), tls.operator_token_file):
        yield from secrets_of_file(settings.path(path))
    yield from secrets_of_tree(settings.model_dump(mode="json"))


def collect(settings: ControllerSettings | None, config: Path | None, state_dir: Path, trouble: str) -> Bundle:
    """Everything that can be had; `settings` None and `trouble` where they cannot be read."""
    bundle = Bundle(known_secrets(settings, config, state_dir))
    bundle.tree("versions.json", versions)
    bundle.tree("environment.json", lambda: environment(ENV_PREFIX))
    if config is not None:
        bundle.text("controller.toml", lambda: config.read_text(encoding="utf-8", errors="replace"))
    if settings is not None:
        bundle.tree("settings.json", lambda: settings.model_dump(mode="json"))
        bundle.text("metrics.txt", lambda: scrape(settings.listen.http_host, settings.listen.http_port))
    else:
        bundle.text("settings.txt", lambda: trouble)
    bundle.tree("store.json", lambda: _rows(state_dir / "controller.db"))
    bundle.text(f"{UNIT}.log", lambda: journal(UNIT))
    return bundle


def _rows(path: Path) -> dict[str, Any]:
    """How many rows each table has; the database is opened to read only."""
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true", poolclass=NullPool)
    with engine.connect() as database:
        counts = {
            table.name: database.execute(select(func.count()).select_from(table)).scalar_one()
            for table in schema.metadata.sorted_tables
        }
    return {"bytes": path.stat().st_size, "rows": counts}
