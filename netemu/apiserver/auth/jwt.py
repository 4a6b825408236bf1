"""JSON web tokens (RFC 7519) signed with ECDSA on P-256 (ES256 of RFC 7518), and the keys that others check them with.

One key, one algorithm: what a token's own header asks for is never followed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

ALGORITHM = "ES256"
_COORDINATE = 32
"""Bytes of a coordinate of P-256, and of each half of a signature."""


class BadToken(Exception):
    """Not a token of this key."""


class Keys:
    """A private key; signs and checks."""

    def __init__(self, pem: bytes) -> None:
        """`pem`: a private key on P-256. Raises TypeError for any other."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

        key = load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise TypeError("a key on the curve P-256 is needed")
        self._key = key
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.id = _text(hashlib.sha256(public).digest())
        self._header = _text(msgspec.json.encode({"alg": ALGORITHM, "kid": self.id}))

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token of these claims."""
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        signed = f"{self._header}.{_text(msgspec.json.encode(claims))}"
        halves = decode_dss_signature(self._key.sign(signed.encode(), _ecdsa()))
        return f"{signed}.{_text(b''.join(half.to_bytes(_COORDINATE) for half in halves))}"

    def read(self, token: str) -> dict[str, Any]:
        """The claims of a token that this key signed; whether they hold is the caller's matter. Raises BadToken."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        signed, _, signature = token.rpartition(".")
        try:
            head, _, body = signed.partition(".")
            given = _bytes(signature)
            if msgspec.json.decode(_bytes(head)).get("alg") != ALGORITHM or len(given) != 2 * _COORDINATE:
                raise BadToken("not an ES256 token")
            halves = (int.from_bytes(given[:_COORDINATE]), int.from_bytes(given[_COORDINATE:]))
            self._key.public_key().verify(encode_dss_signature(*halves), signed.encode(), _ecdsa())
            claims = msgspec.json.decode(_bytes(body))
        except (InvalidSignature, ValueError, AttributeError, binascii.Error) as error:
            raise BadToken(str(error) or "wrong signature") from error
        if not isinstance(claims, dict):
            raise BadToken("claims must be an object")
        return claims

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON web key set (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        point = {"x": _text(numbers.x.to_bytes(_COORDINATE)), "y": _text(numbers.y.to_bytes(_COORDINATE))}
        return {"keys": [{"use": "sig", "kty": "EC", "kid": self.id, "alg": ALGORITHM, "crv": "P-256", **point}]}


def _ecdsa() -> Any:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(hashes.SHA256())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
