"""A certificate that somebody brings: to whom it is shown, and how its end is announced."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import server_tls
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.client.rotation import follow, validity
from netemu.lab.authority import Authority, pem
from netemu.lab.brought import Announcer, BroughtCertificate, expiration_metrics, has_name, names_of, threshold
from netemu.lab.certificate_spec import AnnounceSpec, CertificateSpec
from netemu.lab.topology import read_topology
from netemu.model.certificates import DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, SERVER_AUTH
from netemu.model.resources import EVENTS, NAMESPACES
from netemu.model.yamlfile import Mistakes
from netemu.testing.store import MemoryStore

DAY = 24 * 3600
OWN, THEIRS = Authority.create("own"), Authority.create("theirs")
HOSTS = ("api.example.com", "*.apps.example.com")


def write(folder: Path, authority: Authority, name: str, *hosts: str) -> tuple[Path, Path, Path]:
    """Certificate, key and authority's certificate, as files."""
    paths = folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}-ca.crt"
    for path, text in zip(paths, (*authority.issue(name, hosts=hosts), pem(authority.certificate)), strict=True):
        path.write_bytes(text)
    return paths


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("api.example.com", True),
        ("API.example.com.", True),
        ("one.apps.example.com", True),
        ("two.one.apps.example.com", False),
        ("apps.example.com", False),
        ("kubernetes.default.svc", False),
    ],
)
def test_names_and_wildcards(tmp_path: Path, asked: str, shown: bool) -> None:
    cert, _, _ = write(tmp_path, THEIRS, "theirs", *HOSTS)

    assert has_name(names_of(cert.read_bytes()), asked) is shown


def issue_rsa(name: str, *hosts: str) -> tuple[bytes, bytes]:
    """As `Authority.issue`, for an RSA key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 2048)
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    request = asked.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    certificate = THEIRS.sign(request, (DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, SERVER_AUTH), DAY)
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@functools.cache
def brought_pair(kind: str, host: str) -> tuple[bytes, bytes]:
    """Certificate and key of that kind, for a name."""
    return issue_rsa("theirs", host) if kind == "RSA" else THEIRS.issue("theirs", hosts=(host,))


def shown_for(tls: ssl.SSLContext, name: str) -> bytes:
    """The certificate that a server shows to who asks for a name, in DER: a handshake in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=name)
    server = tls.wrap_bio(up, down, server_side=True)
    for side in (client, server, client):  # TLS 1.3: the hello, its answer, the end
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def der(pair: tuple[bytes, bytes]) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair[0].decode())


@pytest.mark.parametrize(("before", "after"), [("EC", "EC"), ("RSA", "RSA"), ("EC", "RSA"), ("RSA", "EC")])
def test_it_is_shown_by_name_and_the_new_one_once_it_is_there(tmp_path: Path, before: str, after: str) -> None:
    own = write(tmp_path, OWN, "own", "127.0.0.1")
    cert, key = tmp_path / "theirs.crt", tmp_path / "theirs.key"
    tls = server_tls(*own)
    old, new = brought_pair(before, "api.example.com"), brought_pair(after, "new.example.com")
    lab = ssl.PEM_cert_to_DER_cert(own[0].read_text())

    cert.write_bytes(old[0])
    key.write_bytes(old[1])
    brought = BroughtCertificate(CertificateSpec(cert=str(cert), key=str(key)), tls, own[2])
    assert (shown_for(tls, "api.example.com"), shown_for(tls, "other.example.com")) == (der(old), lab)

    cert.write_bytes(new[0])
    with pytest.raises(ssl.SSLError):  # without its key, which comes a moment later
        brought.renewed()[cert]()
    assert shown_for(tls, "api.example.com") == der(old)

    key.write_bytes(new[1])
    brought.renewed()[cert]()
    assert (shown_for(tls, "new.example.com"), shown_for(tls, "api.example.com")) == (der(new), lab)


async def test_a_key_that_comes_late_is_noticed_although_the_certificate_is_the_same(tmp_path: Path) -> None:
    own = write(tmp_path, OWN, "own", "127.0.0.1")
    cert, key, tls = tmp_path / "theirs.crt", tmp_path / "theirs.key", server_tls(*own)
    pair, other = brought_pair("EC", "api.example.com"), brought_pair("EC", "new.example.com")
    cert.write_bytes(pair[0])
    key.write_bytes(other[1])
    brought = BroughtCertificate(CertificateSpec(cert=str(cert), key=str(key)), tls, own[2])
    following = asyncio.create_task(follow(brought.renewed(), look=0.01))
    await asyncio.sleep(0)
    assert shown_for(tls, "api.example.com") != der(pair)

    key.unlink()
    key.write_bytes(pair[1])
    async with asyncio.timeout(10):
        while shown_for(tls, "api.example.com") != der(pair):  # noqa: ASYNC110  (as a client would look)
            await asyncio.sleep(0.01)
    following.cancel()


def test_one_that_cannot_be_read_does_not_keep_the_server_from_working(tmp_path: Path) -> None:
    own = write(tmp_path, OWN, "own", "127.0.0.1")
    tls = server_tls(*own)

    BroughtCertificate(CertificateSpec(cert=str(tmp_path / "none"), key=str(tmp_path / "none")), tls, own[2])

    assert shown_for(tls, "api.example.com") == ssl.PEM_cert_to_DER_cert(own[0].read_text())


@pytest.mark.parametrize(
    ("left", "due"),
    [(31 * DAY, None), (30 * DAY, 30), (8 * DAY, 30), (7 * DAY, 7), (DAY + 1, 7), (DAY, 1), (1, 1), (0, 0), (-DAY, 0)],
)
def test_what_is_due(left: float, due: int | None) -> None:
    assert threshold(left, (30, 7, 1)) == due


class Bed:
    """An API server's objects, a certificate, a clock, and who is told."""

    def __init__(self, folder: Path, client: LocalClient, url: str) -> None:
        self._folder, self._client, self._url = folder, client, url
        self.cert, self._key, _ = write(folder, THEIRS, "theirs", *HOSTS)
        self.end = validity(self.cert.read_text())[1]
        self.posted: list[Any] = []
        self.status, self.now = 200, 0.0

    @property
    def state(self) -> Path:
        """What remembers across restarts."""
        return self._folder / "announced.json"

    async def look(self, days_left: float, **options: str) -> None:
        """As a process that has just started does it, that many days before the end."""
        await self.announcer(days_left, **options).look()

    def announcer(self, days_left: float, *, command: str = 'echo "$NETEMU_DAYS_LEFT" >> told') -> Announcer:
        """A new one, that many days before the end."""
        self.now = self.end - days_left * DAY
        announce = AnnounceSpec(command=("sh", "-c", f"cd {self._folder}; {command}"), webhook=self._url)
        spec = CertificateSpec(cert=str(self.cert), key=str(self._key), announce=announce)
        return Announcer("lab", "cp", spec, self._client, self.state, now=lambda: self.now)

    async def events(self) -> list[str]:
        found = (await self._client.list(EVENTS, "default")).items
        return sorted(
            f"{one['reason']} {one['message'].partition(' API server ')[2].partition(',')[0]}" for one in found
        )

    @property
    def commands(self) -> list[str]:
        path = self._folder / "told"
        return path.read_text().split() if path.exists() else []

    def renew(self) -> None:
        """A new certificate in the place of the one before."""
        write(self._folder, THEIRS, "theirs", *HOSTS)
        self.end = validity(self.cert.read_text())[1]


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    store = MemoryStore()
    registry = Registry(store, Schema.load(), ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    client = LocalClient(registry)
    await client.create(NAMESPACES, {"metadata": {"name": "default"}})
    listener = socket.create_server(("127.0.0.1", 0))
    made = Bed(tmp_path, client, f"http://127.0.0.1:{listener.getsockname()[1]}/")

    async def take(request: web.Request) -> web.Response:
        made.posted.append(msgspec.json.decode(await request.read()))
        return web.Response(status=made.status)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    yield made
    await runner.cleanup()
    await registry.close()
    await store.close()


async def test_each_announcement_comes_once_by_every_way(bed: Bed) -> None:
    for days in (40, 29, 29, 8, 6.5, 6, 0.9, 0.1, -1, -2):
        await bed.look(days)

    assert bed.commands == ["30", "7", "1", "0"]
    assert [notice["daysLeft"] for notice in bed.posted] == [30, 7, 1, 0]
    assert bed.posted[0]["certificate"] == str(bed.cert)
    assert await bed.events() == [
        "CertificateExpired has ended",
        "CertificateExpiring ends within 1 day",
        "CertificateExpiring ends within 30 days",
        "CertificateExpiring ends within 7 days",
    ]


async def test_what_failed_is_tried_again_alone(bed: Bed) -> None:
    bed.status = 500
    await bed.look(5, command="exit 3")
    bed.status = 200
    await bed.look(5)
    await bed.look(5)

    assert (bed.commands, len(bed.posted)) == (["7"], 2)
    assert await bed.events() == ["CertificateExpiring ends within 7 days"]


async def test_a_full_disk_does_not_make_it_say_the_same_again_and_again(bed: Bed) -> None:
    (bed.state / "in-the-way").mkdir(parents=True)
    announcer = bed.announcer(5)
    await announcer.look()
    await announcer.look()

    assert (bed.commands, len(bed.posted)) == (["7"], 1)


async def test_its_successor_is_told_of_anew_and_the_file_is_never_written(bed: Bed) -> None:
    before = bed.cert.read_bytes()
    await bed.look(5)
    untouched = bed.cert.read_bytes() == before
    bed.renew()
    await bed.look(100)
    await bed.look(5)

    assert untouched
    assert bed.commands == ["7", "7"]


def test_metrics_tell_when_each_ends(tmp_path: Path) -> None:
    cert, _, _ = write(tmp_path, THEIRS, "theirs", *HOSTS)
    lines = expiration_metrics({"brought": cert, "own": tmp_path / "none"})

    end = validity(cert.read_text())[1]
    assert lines[2:] == [f'apiserver_certificate_expiration_timestamp_seconds{{certificate="brought"}} {end:.0f}']


TOPOLOGY = """\
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: t}
spec:
  controlPlane:
    certificate: {cert: %s, key: %s, announce: {days: [%d], webhook: %s}}
"""


@pytest.mark.parametrize(
    ("cert", "key", "days", "webhook", "mistake"),
    [
        ("theirs.crt", "theirs.key", 30, "http://a/", ""),
        ("none.crt", "theirs.key", 30, "http://a/", "none.crt: No such file or directory"),
        ("theirs.crt", "own.key", 30, "http://a/", "theirs.crt: must be a certificate in PEM, and own.key its private"),
        ("theirs.key", "theirs.key", 30, "http://a/", "must be a certificate in PEM"),
        ("theirs.crt", "theirs.key", 0, "http://a/", "0: must be 1 or more"),
        ("theirs.crt", "theirs.key", 30, "a", "'a': must be a URL"),
    ],
)
def test_mistakes_are_told_before_a_lab_starts(
    tmp_path: Path, cert: str, key: str, days: int, webhook: str, mistake: str
) -> None:
    write(tmp_path, THEIRS, "theirs", *HOSTS)
    write(tmp_path, OWN, "own", "own")
    path = tmp_path / "lab.yaml"
    path.write_text(TOPOLOGY % (cert, key, days, webhook))
    if not mistake:
        plane = read_topology(path).topology.spec.control_plane
        assert plane.certificate is not None
        assert plane.certificate.cert == str(tmp_path / cert)
        return

    with pytest.raises(Mistakes) as told:
        read_topology(path)

    assert mistake in str(told.value)
    assert ":6:" in str(told.value)
