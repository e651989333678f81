"""Settings of one BMC: where it is, who asks, how its certificate is judged, how often it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from gridpivot.settings import Section


class BmcSettings(Section):
    """One BMC. Without pin_sha256 and ca_file its certificate has to be of a CA that this machine trusts."""

    url: str = Field(pattern=r"^https://[^\s/@]{1,253}/?$")
    username: str = Field(min_length=1, max_length=64)
    password_file: Path  # its first line, readable by its owner alone
    auth: Literal["session", "basic"] = "session"
    ca_file: Path | None = None
    pin_sha256: str | None = None  # of the certificate itself: openssl x509 -fingerprint -sha256
    system: str | None = Field(default=None, min_length=1, max_length=128)  # its Id, where there are several
    chassis: str | None = Field(default=None, min_length=1, max_length=128)
    beat_s: float = Field(default=10.0, ge=2, le=300)
    deadline_s: float = Field(default=5.0, gt=0, le=60)  # of one request

    @field_validator("pin_sha256")
    @classmethod
    def _hex(cls, text: str | None) -> str | None:
        if text is None:
            return None
        plain = text.replace(":", "").lower()
        if len(plain) != 64 or set(plain) - set("0123456789abcdef"):
            raise ValueError("a SHA-256 fingerprint is 64 hex digits, with or without colons")
        return plain

    @model_validator(mode="after")
    def _one_trust(self) -> Self:
        if self.pin_sha256 is not None and self.ca_file is not None:
            raise ValueError("give one of pin_sha256 and ca_file: either the certificate itself is known, or its CA")
        return self

    @property
    def stale_s(self) -> float:
        """A reading older than this says nothing about now [s]."""
        return 3.0 * self.beat_s + 2.0 * self.deadline_s


class PoolBmcSettings(BmcSettings):
    """The BMC of one host of a pool, asked by the site's agent."""

    node: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9.\-]*$")
    shutdown_command: tuple[str, ...] = Field(default=(), max_length=64)  # in place of GracefulShutdown
    off_within_s: float = Field(default=600.0, ge=30, le=7200)  # of the request; later, and the promise is short
    on_within_s: float = Field(default=900.0, ge=30, le=7200)  # until its limits are read back
