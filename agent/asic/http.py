"""HTTP/1 as miners speak it, without a socket: requests as bytes, answers from bytes, digest and basic logins.

One request per connection (`Connection: close`); an answer is whole at its Content-Length, its last chunk, or the close.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from agent.asic.family import Login

_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = re.compile(rb"(?:^|\r\n)0+[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n$")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def build(host: str, method: str, path: str, body: bytes, headers: tuple[tuple[str, str], ...]) -> bytes:
    """One request; a body is announced as JSON unless `headers` say otherwise."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", "Accept: */*"]
    lines += [f"{name}: {value}" for name, value in headers]
    if method != "GET":
        if not any(name.lower() == "content-type" for name, _ in headers):
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def is_whole(data: bytes | bytearray) -> bool:
    """Whether an answer has ended without waiting for the close."""
    end = data.find(_HEAD_END)
    if end < 0:
        return False
    head = bytes(data[:end]).lower()
    found = re.search(rb"\r\ncontent-length:\s*(\d{1,9})\s*(?:\r\n|$)", head)
    if found:
        return len(data) >= end + 4 + int(found.group(1))
    if b"\r\ntransfer-encoding: chunked" in head:
        return data.endswith(b"\r\n\r\n") and _LAST_CHUNK.search(data, max(end, len(data) - 256)) is not None
    return head.split(b" ", 2)[1:2] == [b"204"]


def parse(data: bytes) -> Answer:
    """The answer; raises ValueError for what is not HTTP/1 or was cut off."""
    raw, found, rest = data.partition(_HEAD_END)
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, code, *_ = [*first.split(" ", 2), ""]
    if not found or not version.startswith("HTTP/1.") or not code.isdigit():
        raise ValueError("not HTTP/1")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        rest = _joined(rest)
    elif "content-length" in headers:
        length = int(headers["content-length"])
        if not 0 <= length <= len(rest):
            raise ValueError("body shorter than announced")
        rest = rest[:length]
    return Answer(int(code), headers, rest)


def _joined(data: bytes) -> bytes:
    body, at = bytearray(), 0
    while True:
        line_end = data.index(b"\r\n", at)
        size = int(data[at:line_end].split(b";")[0], 16)
        start = line_end + 2
        if size < 0 or start + size > len(data):
            raise ValueError("chunk shorter than announced")
        if size == 0:
            return bytes(body)
        body += data[start : start + size]
        at = start + size + 2


def basic(login: Login) -> str:
    """Authorization header of the basic scheme."""
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode("ascii")


def digest(challenge: str, method: str, path: str, login: Login, cnonce: str | None = None) -> str | None:
    """Authorization header for a digest challenge (RFC 2617, MD5, qop auth or none); None for any other scheme."""
    scheme, _, rest = challenge.partition(" ")
    fields = {name.lower(): quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', rest)}
    if scheme.lower() != "digest" or fields.get("algorithm", "MD5").upper() != "MD5" or "nonce" not in fields:
        return None
    realm, nonce = fields.get("realm", ""), fields["nonce"]
    secret = _md5(f"{login.username}:{realm}:{login.password}")
    request = _md5(f"{method}:{path}")
    parts = {"username": login.username, "realm": realm, "nonce": nonce, "uri": path}
    header = ", ".join(f'{name}="{value}"' for name, value in parts.items())
    if "auth" in [word.strip() for word in fields.get("qop", "").split(",")]:
        client = cnonce or secrets.token_hex(8)
        response = _md5(f"{secret}:{nonce}:00000001:{client}:auth:{request}")
        header += f', qop=auth, nc=00000001, cnonce="{client}"'
    else:
        response = _md5(f"{secret}:{nonce}:{request}")
    if "opaque" in fields:
        header += f', opaque="{fields["opaque"]}"'
    return f'Digest {header}, response="{response}"'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
