"""The token that lets a site in: one line of text, carried by a person, good once.

It holds everything a new agent needs to find the right controller and nobody else: addresses, the CA certificate
itself, the site's name, an expiry, and a secret of which the controller keeps only the hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from google.protobuf.message import DecodeError

from gridpivot.errors import Refused
from gridpivot.v1 import enrolment_pb2 as pb

PREFIX = "gpt1."
MOST_CHARACTERS = 16_384
PATTERN = re.compile(r"gpt1\.[A-Za-z0-9_-]+")  # what must never stand in a log


def encode(token: pb.AgentToken) -> str:
    """One line."""
    return PREFIX + base64.urlsafe_b64encode(token.SerializeToString()).decode().rstrip("=")


def decode(text: str) -> pb.AgentToken:
    """The token of a line; raises Refused, which never repeats the text."""
    text = "".join(text.split())  # mail programs break lines
    if not text.startswith(PREFIX) or len(text) > MOST_CHARACTERS:
        raise Refused('this is no enrolment token: one line that begins with "gpt1." is wanted; copy it again, whole')
    body = text.removeprefix(PREFIX)
    try:
        token = pb.AgentToken.FromString(base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True))
    except (DecodeError, ValueError, binascii.Error):
        raise Refused("the enrolment token is damaged; copy it again, whole") from None
    if len(token.secret) != 32 or not (token.token_id and token.site and token.operator_address and token.ca_der):
        raise Refused("the enrolment token is cut short; copy it again, whole")
    return token


def secret_sha256(secret: bytes) -> bytes:
    """What the controller keeps. 256 random bits cannot be guessed, so a slow hash would protect nothing."""
    return hashlib.sha256(secret).digest()
