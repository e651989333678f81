"""How a conversation with a BMC ended, and what a person does about it. Closed; the words of metrics, logs and doctor."""

from __future__ import annotations

from enum import StrEnum

from gridpivot.errors import GridpivotError


class BmcOutcome(StrEnum):
    """`ok`, or why there is no figure."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"  # its certificate is neither pinned nor of a CA that is trusted
    UNAUTHORISED = "unauthorised"
    SLOW = "slow"
    BUSY = "busy"  # it has no session left, or says come again
    GARBLED = "garbled"  # not JSON, or not Redfish
    NO_POWER = "no_power"  # nothing there tells power
    SEVERAL = "several"  # more than one system or chassis could be meant
    IMPLAUSIBLE = "implausible"
    UNSUPPORTED = "unsupported"  # it does not offer what is asked
    REFUSED = "refused"


REMEDY: dict[BmcOutcome, str] = {
    BmcOutcome.UNREACHABLE: "check url, the management network and the firewall",
    BmcOutcome.UNTRUSTED: "compare the fingerprint at the BMC's own page, then set pin_sha256; or give its CA as ca_file",
    BmcOutcome.UNAUTHORISED: "correct username and password_file; reading needs the role ReadOnly, off and on Operator",
    BmcOutcome.SLOW: "raise deadline_s; a BMC that others poll too answers late",
    BmcOutcome.BUSY: 'close sessions at the BMC, or set auth = "basic"; raise beat_s',
    BmcOutcome.GARBLED: "check that url is the BMC's own address; update its firmware",
    BmcOutcome.NO_POWER: "name the chassis that tells power as `chassis`, or drop this BMC: the host is modelled then",
    BmcOutcome.SEVERAL: "name the right one as `system` or `chassis`",
    BmcOutcome.IMPLAUSIBLE: "compare with the BMC's own page; update its firmware",
    BmcOutcome.UNSUPPORTED: "give shutdown_command instead",
    BmcOutcome.REFUSED: "see the BMC's own log; off and on need the role Operator",
}


class BmcTrouble(GridpivotError):
    """A BMC that gave no usable answer: the word, what happened and where, and what to do."""

    def __init__(self, outcome: BmcOutcome, said: str) -> None:
        self.outcome, self.said, self.remedy = outcome, said, REMEDY.get(outcome, "")
        super().__init__("; ".join(part for part in (said, self.remedy) if part))
