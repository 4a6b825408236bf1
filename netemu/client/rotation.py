"""Certificates that are followed by others before they end.

A certificate is renewed after seven to nine tenths of its time, at a moment that is thrown for each, so that what was
issued together is not renewed together. Whoever uses files looks at them now and then and takes up what is new; what is
connected already stays so.
Upstream: client-go `util/certificate/certificate_manager.go`, `transport/cert_rotation.go`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from netemu.model.errors import UserError

log = logging.getLogger(__name__)

_EARLIEST, _SPREAD = 0.7, 0.2
_LOOK = 1.0
"""Seconds between two looks at files."""


def renewal(certificate: str, dice: Callable[[], float] = random.random) -> float:
    """When to renew a certificate (PEM), in seconds since 1970. Raises ValueError."""
    begin, end = validity(certificate)
    return begin + (end - begin) * (_EARLIEST + _SPREAD * dice())


def validity(certificate: str) -> tuple[float, float]:
    """When a certificate (the first in a PEM text) begins and ends, in seconds since 1970. Raises ValueError.

    Read here, because the library that reads everything else of it takes more memory than a component's clients.
    """
    before, mark, rest = certificate.partition("-----BEGIN CERTIFICATE-----")
    del before
    body, end, _ = rest.partition("-----END CERTIFICATE-----")
    if not mark or not end:
        raise ValueError("no certificate in PEM")
    der = base64.b64decode(body)
    try:
        # Certificate { tbsCertificate { [0] version, serial, algorithm, issuer, validity { begin, end }, ...
        _, start, _ = _element(der, 0)
        _, position, _ = _element(der, start)
        tag, _, after = _element(der, position)
        if tag == 0xA0:
            position = after
        for _ in range(3):
            _, _, position = _element(der, position)
        _, first, _ = _element(der, position)
        tag, begin, second = _element(der, first)
        other, finish, last = _element(der, second)
        return _moment(tag, der[begin:second]), _moment(other, der[finish:last])
    except IndexError:
        raise ValueError("a certificate that is cut off") from None


def _element(der: bytes, position: int) -> tuple[int, int, int]:
    """Of an element of DER: its tag, where its content begins and where it ends."""
    tag, length, begin = der[position], der[position + 1], position + 2
    if length & 0x80:
        size = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + size]), begin + size
    return tag, begin, begin + length


def _moment(tag: int, text: bytes) -> float:
    utc_time = 0x17
    form = "%y%m%d%H%M%SZ" if tag == utc_time else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode(), form).replace(tzinfo=UTC).timestamp()


async def follow(files: Mapping[Path, Callable[[], None]], look: float = _LOOK) -> None:
    """Call what stands for a file whenever it is another one than before, until cancelled.

    What fails because the files that belong together are not all there yet is tried again.
    """
    seen = {path: _version(path) for path in files}
    while True:
        await asyncio.sleep(look)
        for path, use in files.items():
            version = _version(path)
            if version == seen[path]:
                continue
            try:
                use()
                seen[path] = version
                log.info("%s is new and in use", path.name)
            except (ssl.SSLError, OSError, UserError, ValueError) as error:
                log.warning("%s is new and cannot be used yet: %s", path.name, error)


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino
