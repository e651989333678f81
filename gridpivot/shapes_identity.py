"""JSON of what is printed about identities, grid events and the audit. A room of its own beside `shapes`."""

from __future__ import annotations

from datetime import datetime

from gridpivot.shapes import Document, Figures


class AgentTokenShape(Document):
    """`gridpivot-controller agent-token create`. `token` is a secret."""

    token: str
    token_id: str
    site: str
    expires_at: datetime


class TokenFigures(Figures):
    """A token without its secret. `state`: unused, used, revoked, expired."""

    token_id: str
    site: str
    state: str
    created_at: datetime
    expires_at: datetime
    used_from: str | None = None


class AgentTokensShape(Document):
    """`gridpivot-controller agent-token list`."""

    tokens: list[TokenFigures]


class OperatorFigures(Figures):
    """Who may call. `by`: token or certificate."""

    name: str
    role: str
    by: str
    created_at: datetime
    revoked: bool


class OperatorsShape(Document):
    """`gridpivot-controller operator list`."""

    operators: list[OperatorFigures]


class SiteIdentityFigures(Figures):
    """A site's newest certificate. `state`: valid, expired, revoked; null times = only a mark of a revocation."""

    site: str
    serial: str | None = None
    issued_at: datetime | None = None
    not_after: datetime | None = None
    state: str


class RecoveryFigures(Figures):
    """A site with an expired certificate that asks to come back."""

    site: str
    fingerprint: str
    asked_at: datetime
    origin: str


class IdentitiesShape(Document):
    """`gridpivot identity list`."""

    sites: list[SiteIdentityFigures]
    recoveries: list[RecoveryFigures]


class DecidedShape(Document):
    """`gridpivot identity approve`, `refuse` and `revoke`."""

    site: str
    state: str
    audit_id: str


class AuditFigures(Figures):
    """Who changed what, why, from where. `request` is what was asked."""

    audit_id: str
    at: datetime
    actor: str
    role: str | None = None
    origin: str | None = None
    action: str
    reason: str
    request: dict[str, object]


class AuditShape(Document):
    """`gridpivot audit`."""

    lines: list[AuditFigures]


class EventFigures(Figures):
    """A grid event or an override. `state`: to_come, active, ended; null end = until released."""

    event_id: str
    kind: str
    sites: list[str]
    state: str
    starts_at: datetime
    ends_at: datetime | None = None
    ceiling_w: float
    reason: str
    product: str | None = None


class EventsShape(Document):
    """`gridpivot event list`."""

    events: list[EventFigures]


class ReleasedShape(Document):
    """`gridpivot event release`."""

    event_id: str
    sites: list[str]
    audit_id: str
