"""How a BMC's certificate is judged: by its own fingerprint, by a CA of a file, or by the CAs of this machine.

BMCs leave the factory with certificates that nobody signed and that name nobody, so that a pinned fingerprint is the
usual way. It is compared inside the handshake, before the password or anything else is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl

from agent.bmc.outcomes import BmcOutcome, BmcTrouble
from agent.bmc.settings import BmcSettings


class _Pinned(ssl.SSLObject):
    """A TLS connection that goes on only with the certificate of `context.pin`."""

    def do_handshake(self) -> None:
        super().do_handshake()
        shown = fingerprint(self.getpeercert(binary_form=True) or b"")
        wanted = getattr(self.context, "pin", "")
        if not hmac.compare_digest(shown, wanted):
            raise ssl.SSLCertVerificationError(f"the certificate's SHA-256 is {shown}")


class _PinnedContext(ssl.SSLContext):
    """Trusts one certificate, whoever signed it and whatever name it bears."""

    sslobject_class = _Pinned
    pin: str


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, as hex digits."""
    return hashlib.sha256(der).hexdigest()


def tls_context(settings: BmcSettings) -> ssl.SSLContext:
    """For connections to this BMC. Blocks on the disk; raises BmcTrouble for a CA file that cannot be used."""
    if settings.pin_sha256 is not None:
        pinned = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
        pinned.check_hostname = False
        pinned.verify_mode = ssl.CERT_NONE  # judged by _Pinned
        pinned.pin = settings.pin_sha256
        return pinned
    if settings.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise BmcTrouble(BmcOutcome.UNTRUSTED, f"{settings.ca_file}: {error}") from None


def distrusted(error: BaseException) -> str | None:
    """What was wrong with the certificate, if that is what an error comes from."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return found.verify_message if getattr(found, "verify_message", "") else str(found.args[-1])
        found = found.__cause__ or found.__context__
    return None
