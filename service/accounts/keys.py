"""API keys: `pg_` + id + `_` + secret + checksum, all base62.

The prefix and the checksum let secret scanners find keys that leaked; the checksum also tells a mistyped key
without a database. Only the id and the SHA-256 of the whole key are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH = 8
_SECRET_LENGTH = 27  # 62 ** 27 is more than 2 ** 160
_CHECKSUM_LENGTH = 6  # 62 ** 6 is more than 2 ** 32
_KEY = re.compile(rf"pg_([0-9A-Za-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}")
_ID = slice(len("pg_"), len("pg_") + _ID_LENGTH)
_NO_DIGEST = bytes(32)


@dataclass(frozen=True)
class ApiKey:
    """A key of the right form.

    Attributes:
        key_id: the public part, for logs and lists.
        text: the whole key: a secret.
    """

    key_id: str
    text: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key, 32 bytes: what is kept of it. The secret is random, so no salt is needed."""
        return _digest(self.text)


def new_key() -> ApiKey:
    """A key from the system's source of randomness."""
    key_id = _random(_ID_LENGTH)
    body = f"pg_{key_id}_{_random(_SECRET_LENGTH)}"
    return ApiKey(key_id, body + _checksum(body))


def parse_key(text: str) -> ApiKey | None:
    """The key in a text; None where form or checksum is wrong."""
    found = _KEY.fullmatch(text)
    if found is None or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return ApiKey(found[1], text)


def id_in(text: str) -> str:
    """The id of a key, by its place in the text; of another text anything, which is the id of no key."""
    return text[_ID]


def matches(text: str, digest: bytes | None) -> bool:
    """Whether a text is the key that a digest was made of, in constant time; a missing digest takes as long
    as a wrong one. Neither form nor checksum has to be checked before.

    Args:
        text: as a caller sent it.
        digest: 32 bytes; None where no key has that id.
    """
    same = hmac.compare_digest(_digest(text), _NO_DIGEST if digest is None else digest)
    return same and digest is not None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _checksum(text: str) -> str:
    """CRC-32 in base62, most significant digit first."""
    number = zlib.crc32(text.encode("ascii"))
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits
