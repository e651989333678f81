"""Identities, audit and events: from the wire to shapes, from shapes to tables. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from gridpivot.shapes_identity import (
    AuditFigures,
    AuditShape,
    EventFigures,
    EventsShape,
    IdentitiesShape,
    RecoveryFigures,
    SiteIdentityFigures,
)
from gridpivot.v1 import operator_pb2 as op


def _at(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


def _text(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%MZ}"


def identities_shape(answer: op.ListIdentitiesResponse) -> IdentitiesShape:
    """Certificates and waiting recoveries."""
    return IdentitiesShape(
        sites=[
            SiteIdentityFigures(
                site=line.site,
                serial=line.serial or None,
                issued_at=_at(line.issued_at_unix_ms) if line.serial else None,
                not_after=_at(line.not_after_unix_ms) if line.serial else None,
                state=line.state,
            )
            for line in answer.sites
        ],
        recoveries=[
            RecoveryFigures(
                site=line.site, fingerprint=line.fingerprint, asked_at=_at(line.asked_at_unix_ms), origin=line.origin
            )
            for line in answer.recoveries
        ],
    )


def identities_table(shape: IdentitiesShape) -> Group:
    """Two tables; the second only when somebody waits."""
    table = Table(box=None)
    for column in ("site", "state", "issued", "ends", "serial"):
        table.add_column(column)
    for line in shape.sites:
        table.add_row(escape(line.site), line.state, _text(line.issued_at), _text(line.not_after), line.serial or "")
    if not shape.recoveries:
        return Group(table)
    waiting = Table(box=None, title="ask to come back", title_justify="left")
    for column in ("site", "asked", "from", "fingerprint"):
        waiting.add_column(column)
    for asked in shape.recoveries:
        waiting.add_row(escape(asked.site), _text(asked.asked_at), escape(asked.origin), asked.fingerprint[:32])
    return Group(table, waiting)


def audit_shape(answer: op.ListAuditResponse) -> AuditShape:
    """Audit records, oldest first."""
    return AuditShape(
        lines=[
            AuditFigures(
                audit_id=line.audit_id,
                at=_at(line.at_unix_ms),
                actor=line.actor,
                role=line.role or None,
                origin=line.origin or None,
                action=line.action,
                reason=line.reason,
                request=_request(line.request),
            )
            for line in answer.lines
        ]
    )


def _request(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def audit_table(shape: AuditShape) -> Table:
    """One line a record."""
    table = Table(box=None)
    for column in ("when", "who", "role", "what", "why", "from"):
        table.add_column(column)
    for line in shape.lines:
        table.add_row(
            f"{line.at:%Y-%m-%d %H:%M:%SZ}",
            escape(line.actor),
            line.role or "",
            line.action,
            escape(line.reason),
            escape(line.origin or ""),
        )
    return table


def events_shape(answer: op.ListEventsResponse) -> EventsShape:
    """Grid events and overrides, by start."""
    return EventsShape(
        events=[
            EventFigures(
                event_id=line.event_id,
                kind=line.kind,
                sites=list(line.sites),
                state=line.state,
                starts_at=_at(line.starts_at_unix_ms),
                ends_at=_at(line.ends_at_unix_ms) if line.HasField("ends_at_unix_ms") else None,
                ceiling_w=line.ceiling_w,
                reason=line.reason,
                product=line.product or None,
            )
            for line in answer.events
        ]
    )


def events_table(shape: EventsShape) -> Table | str:
    """One line an event."""
    if not shape.events:
        return "no grid event and no override is in force or to come"
    table = Table(box=None)
    for column in ("event", "kind", "state", "starts", "ends", "lowest ceiling", "sites", "why"):
        table.add_column(column)
    for line in shape.events:
        sites = ", ".join(line.sites[:3]) + (f" and {len(line.sites) - 3} more" if len(line.sites) > 3 else "")
        table.add_row(
            line.event_id,
            line.kind,
            line.state,
            _text(line.starts_at),
            _text(line.ends_at) or "until released",
            f"{line.ceiling_w / 1e6:.2f} MW",
            escape(sites),
            escape(line.reason),
        )
    return table
