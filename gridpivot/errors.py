"""One small tree of exceptions. Each says what happened, where, and what a person should do.

`exit_code` is what a command ends with: 1 failed, 2 usage or settings, 3 unreachable, 4 refused.
"""

from __future__ import annotations


class GridpivotError(Exception):
    """Root of everything this project raises on purpose."""

    exit_code = 1


class SettingsError(GridpivotError):
    """Settings that cannot be used: file, line, what, and what to do."""

    exit_code = 2


class Unreachable(GridpivotError):
    """The other side did not answer in time."""

    exit_code = 3


class Refused(GridpivotError):
    """The other side said no."""

    exit_code = 4


class BadReport(GridpivotError):
    """A report that contradicts its own inventory or the contract; nothing of it was taken."""


class BadPlan(GridpivotError):
    """A plan that must not be applied; `refusal` is a word of PlanRefusal."""

    def __init__(self, refusal: str, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class BadReply(GridpivotError):
    """A device answered something that cannot be understood; its state stays unknown."""


class BadPrice(GridpivotError):
    """A price outside its sane bounds; the last good one stays."""


class FeedFailed(GridpivotError):
    """A market feed that gave no usable answer; its last good prices stay and age."""


class DeviceUnreachable(GridpivotError):
    """A device did not answer within its deadline; `reason` is a word of Reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SpoolError(GridpivotError):
    """The spool cannot take or give records."""


class Infeasible(GridpivotError):
    """Dispatch found no publishable optimum; the last plan stays."""
