"""The `$1$` password hash (md5crypt), which Whatsminer V2 uses to derive keys and signatures from a password.

The standard library lost its own with Python 3.13, so the C library's is called where it has one (0.15 ms a hash) and
this module's else (1 ms: with two hashes a token, ten seconds of a site's emergency shed). This is no protection for
anything: the devices fix the scheme.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
from collections.abc import Callable
from functools import cache

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_GROUPS = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def md5crypt_digest(password: str, salt: str) -> str:
    """The 22 characters behind `$1$salt$`, that is the 4th field of the hash. Only 8 characters of the salt count."""
    crypt = _crypt()
    if crypt is not None and "\x00" not in password + salt and "$" not in salt:
        hashed = crypt(password.encode(), b"$1$" + salt.encode()[:8] + b"$")
        if hashed is not None and hashed.startswith(b"$1$"):
            return hashed.rsplit(b"$", 1)[-1].decode("ascii")
    return md5crypt_slowly(password, salt)


@cache
def _crypt() -> Callable[[bytes, bytes], bytes | None] | None:
    """crypt(3), where the C library has one that knows md5crypt. Not thread-safe: the event loop's thread only."""
    try:
        found = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1").crypt
    except (OSError, AttributeError):
        return None
    found.restype, found.argtypes = ctypes.c_char_p, (ctypes.c_char_p, ctypes.c_char_p)
    known = b"$1$abcdefgh$" + md5crypt_slowly("password", "abcdefgh").encode()
    return found if found(b"password", b"$1$abcdefgh$") == known else None


def md5crypt_slowly(password: str, salt: str) -> str:
    """The same without the C library."""
    key, grain = password.encode(), salt.encode()[:8]
    inner = _md5(key + grain + key)
    seed = bytearray(key + b"$1$" + grain)
    seed += (inner * (len(key) // 16 + 1))[: len(key)]
    bits = len(key)
    while bits:
        seed += b"\x00" if bits & 1 else key[:1]
        bits >>= 1
    digest = _md5(bytes(seed))
    for turn in range(1000):
        odd = turn & 1
        mixed = key if odd else digest
        if turn % 3:
            mixed += grain
        if turn % 7:
            mixed += key
        digest = _md5(mixed + (digest if odd else key))
    letters: list[str] = []
    for high, middle, low in _GROUPS:
        letters.extend(_base64(digest[high] << 16 | digest[middle] << 8 | digest[low], 4))
    letters.extend(_base64(digest[11], 2))
    return "".join(letters)


def _base64(value: int, length: int) -> str:
    """Least significant six bits first, as crypt(3) writes them."""
    return "".join(_ALPHABET[value >> (6 * place) & 0x3F] for place in range(length))
