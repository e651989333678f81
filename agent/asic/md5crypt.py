"""The `$1$` password hash (md5crypt), which Whatsminer V2 uses to derive keys and signatures from a password.

The standard library lost its own with Python 3.13. This is no protection for anything: the devices fix the scheme.
"""

from __future__ import annotations

import hashlib

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_GROUPS = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def md5crypt_digest(password: str, salt: str) -> str:
    """The 22 characters behind `$1$salt$`, that is the 4th field of the hash. Only 8 characters of the salt count."""
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
