"""The operator's end of the controller's API: one channel, a token, a deadline on every call, errors as sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from gridpivot.errors import GridpivotError, Refused, SettingsError, Unreachable
from gridpivot.link.credentials import CLIENT_OPTIONS, KeyPair, client_credentials, read_public, read_secret
from gridpivot.v1 import operator_pb2_grpc

Answer = TypeVar("Answer")

NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
SAID_NO = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
}


@dataclass(frozen=True, slots=True)
class Controller:
    """Where the controller is, whom to trust, what to show."""

    address: str
    ca: Path | None
    token_file: Path | None
    cert: Path | None = None
    key_file: Path | None = None


class Client:
    """Calls with the token and the deadline; raises Unreachable, Refused or GridpivotError, one sentence each."""

    def __init__(self, stub: operator_pb2_grpc.OperatorServiceStub, address: str, token: str) -> None:
        self.stub = stub
        self._address = address
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def call(self, method: Any, request: Any, answer: type[Answer], deadline_s: float) -> Answer:
        """One answer to one request within `deadline_s`; `method` is one of the stub's."""
        try:
            reply = method(request, timeout=deadline_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _sentence(error, self._address) from error
        assert isinstance(reply, answer)
        return reply


@contextlib.contextmanager
def connected(controller: Controller) -> Iterator[Client]:
    """A client for the length of a command; raises SettingsError when it does not know whom to trust."""
    if controller.ca is None:
        raise SettingsError("no CA to trust; give --ca FILE or GRIDPIVOT_CA (the controller's tls/ca.crt)")
    own, token = None, ""
    if controller.cert is not None and controller.key_file is not None:
        own = KeyPair(read_secret(controller.key_file), read_public(controller.cert))
    elif controller.cert is not None or controller.key_file is not None:
        raise SettingsError("--cert and --key go together; give both, or --token-file")
    elif controller.token_file is None:
        raise SettingsError(
            "no token; give --token-file FILE or GRIDPIVOT_TOKEN_FILE (the controller's operator.token), or --cert and --key"
        )
    else:
        token = read_secret(controller.token_file).decode("ascii", "replace").strip()
    credentials = client_credentials(read_public(controller.ca), own)
    with grpc.secure_channel(controller.address, credentials, options=list(CLIENT_OPTIONS)) as channel:
        yield Client(operator_pb2_grpc.OperatorServiceStub(channel), controller.address, token)


def _sentence(error: grpc.RpcError, address: str) -> GridpivotError:
    code, details = error.code(), " ".join((error.details() or "").split())
    if code in NO_ANSWER:
        hint = "no answer in time" if code is grpc.StatusCode.DEADLINE_EXCEEDED else details
        if any(
            word in details for word in ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification", "Tls handshake failed")
        ):
            hint = "its certificate is not from this CA or not for this name; check --ca and --controller"
        return Unreachable(f"controller {address}: {hint}; is it running, and is this its operator port?")
    if code in SAID_NO:
        return Refused(details)
    return GridpivotError(f"controller {address}: {code.name.lower()}: {details}")
