"""A serving certificate that somebody brings: shown to whoever asks for one of its names, and told of before it ends.

As with kube-apiserver's `--tls-sni-cert-key`, a client that asks for a name in it (SNI) sees this certificate,
everybody else the lab's own; so whatever is inside the lab works on. Its files are read and never written: whoever
brought it renews it, and the new one is in use a second later. Its end is announced a while before, by default 30, 7
and 1 days: by an Event about the control plane's node, a command and a webhook, each once per certificate. What was
said is kept on disk, and what failed is tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from netemu.apiserver.auth.authentication import server_tls
from netemu.client.base import Client
from netemu.client.rotation import validity
from netemu.lab.certificate_spec import AnnounceSpec, CertificateSpec
from netemu.lab.config import write_file
from netemu.model import times
from netemu.model.errors import AlreadyExists, ApiError
from netemu.model.resources import EVENTS

log = logging.getLogger(__name__)

_DAY = 24 * 3600.0
_LOOK = 60.0
"""Seconds between two looks at the clock and the file."""
_PATIENCE = 30.0
"""Seconds that a command or a webhook may take."""


def names_of(certificate: bytes) -> tuple[str, ...]:
    """The DNS names in a certificate (PEM)."""
    from cryptography import x509

    try:
        made = x509.load_pem_x509_certificate(certificate)
        also = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(also.get_values_for_type(x509.DNSName))


def has_name(names: tuple[str, ...], asked: str) -> bool:
    """Whether a name, or a wildcard for its first label, is among the names of a certificate."""
    asked = asked.lower().rstrip(".")
    return asked in names or f"*.{asked.partition('.')[2]}" in names


class BroughtCertificate:
    """Shows it to those who ask for it."""

    def __init__(self, spec: CertificateSpec, tls: ssl.SSLContext, client_ca: Path) -> None:
        """`tls`, the lab's own, gives way to it; clients show certificates of `client_ca` to either."""
        self._cert, self._key, self._client_ca = Path(spec.cert), Path(spec.key), client_ca
        self._tls, self._names = tls, tuple[str, ...]()
        try:
            self._load()
        except (OSError, ssl.SSLError, ValueError) as error:  # the lab works without it, until somebody mends it
            log.error("certificate %s cannot be shown: %s", self._cert, error)

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if name and has_name(self._names, name):
                connection.context = self._tls

        tls.sni_callback = choose

    def renewed(self) -> dict[Path, Callable[[], None]]:
        """What to do when one of its files is another one; while they do not belong together, it is tried again."""
        return {self._cert: self._load, self._key: self._load}

    def _load(self) -> None:
        # Into an empty context: OpenSSL keeps a certificate for each kind of key, and would show one from before.
        tls = server_tls(self._cert, self._key, self._client_ca)
        self._tls, self._names = tls, names_of(self._cert.read_bytes())


def threshold(left: float, days: tuple[int, ...]) -> int | None:
    """The announcement that is due with that many seconds left: the smallest number of days that is not over yet.

    0 is that it has ended; None that it is too early for any. Pure.
    """
    if left <= 0:
        return 0
    return min((each for each in days if left <= each * _DAY), default=None)


class Announcer:
    """Tells that the certificate ends. `look` may be called at any time, and after any restart."""

    def __init__(
        self,
        lab: str,
        node: str,
        spec: CertificateSpec,
        client: Client,
        told: Path,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`told` is the file that remembers what was said."""
        self._lab, self._node, self._path, self._announce = lab, node, Path(spec.cert), spec.announce
        self._client, self._told, self._now = client, told, now
        self._said = self._read()

    async def run(self) -> None:
        """Look now and then until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK)

    async def look(self) -> None:
        """Say what is due and was not said yet."""
        try:
            text = self._path.read_text()
            end = validity(text)[1]
        except (OSError, ValueError) as error:
            log.warning("%s: %s", self._path, error)
            return
        days = threshold(end - self._now(), self._announce.days)
        if days is None:
            return
        certificate = hashlib.sha256(text.encode()).hexdigest()[:16]
        notice = _notice(self._lab, self._path, end, days)
        for channel, tell in _channels(self._announce, partial(self._event, certificate)).items():
            if channel in self._said.get(certificate, {}).get(str(days), ()):
                continue
            try:
                await tell(notice)
                self._remember(certificate, days, channel)
            except (ApiError, OSError, TimeoutError, ValueError) as error:
                log.warning("%s: announcing its end by %s: %s; again in %.0f s", self._path, channel, error, _LOOK)
                continue
            log.warning("%s; announced by %s", notice["message"], channel)

    def _remember(self, certificate: str, days: int, channel: str) -> None:
        """Raises OSError where it is remembered by this process alone."""
        about = self._said.get(certificate, {})
        self._said = {certificate: {**about, str(days): [*about.get(str(days), []), channel]}}
        write_file(self._told, msgspec.json.encode(self._said))

    def _read(self) -> dict[str, dict[str, list[str]]]:
        try:
            return msgspec.json.decode(self._told.read_bytes(), type=dict[str, dict[str, list[str]]])
        except (OSError, msgspec.DecodeError):
            return {}

    async def _event(self, certificate: str, notice: Mapping[str, Any]) -> None:
        moment = times.now()
        event = {
            # Its name is its own for each announcement, so that it is there once however often it is tried.
            "metadata": {"name": f"{self._node}.{certificate}.{notice['daysLeft']}", "namespace": "default"},
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": self._node},
            "reason": "CertificateExpired" if notice["daysLeft"] == 0 else "CertificateExpiring",
            "message": notice["message"],
            "type": "Warning",
            "source": {"component": "kube-apiserver"},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        try:
            await self._client.create(EVENTS, event, "default")
        except AlreadyExists:
            log.debug("event about %s is there", certificate)


def _notice(lab: str, path: Path, end: float, days: int) -> dict[str, Any]:
    ends = times.time_text(datetime.fromtimestamp(end, UTC))
    when = "has ended" if days == 0 else f"ends within {days} {'day' if days == 1 else 'days'}"
    message = f"the certificate {path} of the API server {when}, at {ends}"
    return {"lab": lab, "certificate": str(path), "notAfter": ends, "daysLeft": days, "message": message}


Tell = Callable[[Mapping[str, Any]], Any]


def _channels(announce: AnnounceSpec, event: Tell) -> dict[str, Tell]:
    found: dict[str, Tell] = {"event": event}
    if announce.command:
        found["command"] = partial(_run, announce.command)
    if announce.webhook:
        found["webhook"] = partial(_post, announce.webhook)
    return found


async def _run(command: tuple[str, ...], notice: Mapping[str, Any]) -> None:
    """Raises OSError where it cannot be run or fails, TimeoutError."""
    about = {"NETEMU_LAB": "lab", "NETEMU_CERTIFICATE": "certificate", "NETEMU_NOT_AFTER": "notAfter",
             "NETEMU_DAYS_LEFT": "daysLeft", "NETEMU_MESSAGE": "message"}  # fmt: skip
    env = {**os.environ, **{name: str(notice[key]) for name, key in about.items()}}
    process = await asyncio.create_subprocess_exec(*command, env=env, stdin=asyncio.subprocess.DEVNULL)
    try:
        code = await asyncio.wait_for(process.wait(), _PATIENCE)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise TimeoutError(f"{command[0]} takes longer than {_PATIENCE:.0f} s") from None
    if code:
        raise OSError(f"{command[0]} ends with exit code {code}")


async def _post(url: str, notice: Mapping[str, Any]) -> None:
    """Raises OSError where nobody answers well, TimeoutError."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_PATIENCE)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=notice) as answer:
            if answer.status >= 300:
                raise OSError(f"{url} answers {answer.status}")
    except aiohttp.ClientError as error:
        raise OSError(f"{url}: {error}") from error


def expiration_metrics(certificates: Mapping[str, Path]) -> list[str]:
    """When the certificates that the API server serves with end, for Prometheus; by the word for each."""
    metric = "apiserver_certificate_expiration_timestamp_seconds"
    lines = [f"# HELP {metric} When a certificate that the API server serves with ends.", f"# TYPE {metric} gauge"]
    for word, path in certificates.items():
        try:
            lines.append(f'{metric}{{certificate="{word}"}} {validity(path.read_text())[1]:.0f}')
        except (OSError, ValueError):
            continue
    return lines
