"""`spec.controlPlane.certificate` of a topology: a serving certificate that somebody brings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from netemu.model.yamlfile import Document, Mistake, Where


class _Part(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    pass


class AnnounceSpec(_Part, frozen=True, kw_only=True):
    """Who is told that it ends, beside the Event that everybody can see."""

    days: tuple[int, ...] = (30, 7, 1)
    """How long before."""
    command: tuple[str, ...] = ()
    """What is run on this machine, with NETEMU_* in its environment."""
    webhook: str = ""
    """URL that is told by a POST of JSON."""


class CertificateSpec(_Part, frozen=True, kw_only=True):
    """PEM files; relative paths begin at the topology file."""

    cert: str
    key: str
    announce: AnnounceSpec = AnnounceSpec()

    def located(self, folder: Path) -> CertificateSpec:
        """With absolute paths."""
        cert, key = (str((folder / path).resolve()) for path in (self.cert, self.key))
        return msgspec.structs.replace(self, cert=cert, key=key)


def check_certificate(document: Document, spec: CertificateSpec, folder: Path) -> Iterator[Mistake]:
    """What is wrong with it and its files."""
    import ssl

    from netemu.client.rotation import validity

    where: Where = ("spec", "controlPlane", "certificate")
    files = spec.located(folder)
    for name in ("cert", "key"):
        try:
            Path(getattr(files, name)).read_bytes()
        except OSError as error:
            yield document.mistake((*where, name), f"{getattr(spec, name)}: {error.strerror}")
            return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key)
        end = validity(Path(files.cert).read_text())[1]
    except (ssl.SSLError, ValueError):
        why = f"{spec.cert}: must be a certificate in PEM, and {spec.key} its private key, without a password"
        yield document.mistake((*where, "cert"), why)
        return
    if end <= time.time():
        yield document.mistake((*where, "cert"), f"{spec.cert}: the certificate has ended; must be good still")
    for index, days in enumerate(spec.announce.days):
        if days < 1:
            yield document.mistake((*where, "announce", "days", index), f"{days}: must be 1 or more")
    if spec.announce.webhook and not spec.announce.webhook.startswith(("http://", "https://")):
        why = f"{spec.announce.webhook!r}: must be a URL that begins with http:// or https://"
        yield document.mistake((*where, "announce", "webhook"), why)
