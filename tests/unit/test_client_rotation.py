"""Certificates that others follow: when, and that nothing which is connected is lost by it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import server_tls
from netemu.apiserver.http.server import ApiServer
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.client.http import HttpClient
from netemu.client.kubeconfig import Credentials
from netemu.client.rotation import follow, renewal, validity
from netemu.lab import etcd_pki
from netemu.lab import renewal as lab_renewal
from netemu.lab.authority import YEAR, Authority, pem
from netemu.lab.config import LabConfig, resolve
from netemu.lab.node_spec import ControlPlaneSpec
from netemu.lab.paths import LabPaths
from netemu.lab.pki import Issued, authority, ensure_pki, issued
from netemu.lab.topology import Metadata, Topology, TopologySpec
from netemu.model.errors import Unauthorized
from netemu.model.resources import CONFIGMAPS, NAMESPACES
from netemu.testing.store import MemoryStore

CA = Authority.create("test-ca")


@pytest.mark.parametrize("years", [0.01, 1, 10, 60])
def test_validity_is_read_as_it_was_written(years: float) -> None:
    text = Authority(CA.key, CA.certificate, lifetime=years * YEAR).issue("me")[0]

    made = x509.load_pem_x509_certificate(text)
    expected = made.not_valid_before_utc.timestamp(), made.not_valid_after_utc.timestamp()
    assert validity(text.decode()) == expected


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="certificate"):
        validity(text)


@pytest.mark.parametrize(("thrown", "share"), [(0.0, 0.7), (0.5, 0.8), (1.0, 0.9)])
def test_renewal_comes_after_seven_to_nine_tenths(thrown: float, share: float) -> None:
    text = CA.issue("me")[0].decode()
    begin, end = validity(text)

    assert renewal(text, lambda: thrown) == pytest.approx(begin + share * (end - begin))


async def until(check: Callable[[], bool]) -> None:
    """Wait for a state, ten seconds at most."""
    for _ in range(1000):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within ten seconds")


class Serving:
    """A server whose certificate can change, and clients of it."""

    def __init__(self, folder: Path, tls: ssl.SSLContext, port: int) -> None:
        self._folder, self._tls, self._port = folder, tls, port

    def credentials(self, user: str, lifetime: float = YEAR) -> Credentials:
        certificate, key = Authority(CA.key, CA.certificate, lifetime=lifetime).issue(user)
        url = f"https://127.0.0.1:{self._port}"
        return Credentials(url, pem(CA.certificate).decode(), certificate.decode(), key.decode())

    def renew(self) -> bytes:
        """A new certificate to serve with; what it is."""
        certificate, key = CA.issue("server", hosts=("127.0.0.1",))
        (self._folder / "server.crt").write_bytes(certificate)
        (self._folder / "server.key").write_bytes(key)
        self._tls.load_cert_chain(self._folder / "server.crt", self._folder / "server.key")
        return ssl.PEM_cert_to_DER_cert(certificate.decode())

    def shown(self) -> bytes:
        """What it serves with, as a new connection sees it."""
        context = ssl.create_default_context(cadata=pem(CA.certificate).decode())
        with (
            socket.create_connection(("127.0.0.1", self._port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Serving]:
    store, schema = MemoryStore(), Schema.load()
    registry = Registry(store, schema, ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    await registry.create(NAMESPACES, {"metadata": {"name": "default"}})
    server, listener = ApiServer(registry, schema), socket.create_server(("127.0.0.1", 0))
    for file, text in zip(("server.crt", "server.key"), CA.issue("server", hosts=("127.0.0.1",)), strict=True):
        (folder / file).write_bytes(text)
    (folder / "ca.crt").write_bytes(pem(CA.certificate))
    tls = server_tls(folder / "server.crt", folder / "server.key", folder / "ca.crt")
    try:
        await server.start([listener], tls)
        yield Serving(folder, tls, listener.getsockname()[1])
    finally:
        await server.close()
        await registry.close()
        await store.close()


async def writer_of(client: HttpClient, name: str) -> None:
    await client.create(CONFIGMAPS, {"metadata": {"name": name}}, "default")


async def test_a_watch_outlives_new_certificates_on_both_sides(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, HttpClient(server.credentials("ann")) as client:
        events = client.watch(CONFIGMAPS, "default", resource_version="1")
        await writer_of(client, "before")
        first = await anext(events)
        before = await asyncio.to_thread(server.shown)
        after = server.renew()
        client.use(server.credentials("bob"))
        await writer_of(client, "after")
        second = await anext(events)
        await events.aclose()

        assert [event.object["metadata"]["name"] for event in (first, second)] == ["before", "after"]
        assert await asyncio.to_thread(server.shown) == after
        assert before != after


async def test_new_requests_show_the_new_certificate(tmp_path: Path) -> None:
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    async with serving(tmp_path) as server, HttpClient(server.credentials("ann")) as client:
        users = []
        for credentials in (None, server.credentials("bob")):
            if credentials:
                client.use(credentials)
            answer = await client.request("POST", path, body={})
            users.append(answer["status"]["userInfo"]["username"])

    assert users == ["ann", "bob"]


async def test_a_certificate_that_ends_while_it_is_connected_is_good_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        credentials = server.credentials("ann", lifetime=2)
        async with HttpClient(credentials) as client:
            await writer_of(client, "in-time")
            await until(lambda: time.time() > validity(credentials.client_certificate)[1])

            with pytest.raises(Unauthorized):
                await writer_of(client, "too-late")


async def test_a_file_is_taken_up_once_it_is_new_and_whole(tmp_path: Path) -> None:
    path, taken = tmp_path / "x.crt", []
    path.write_text("old")
    whole = asyncio.Event()

    def use() -> None:
        if not whole.is_set():
            whole.set()
            raise ssl.SSLError("the key is another one's")
        taken.append(path.read_text())

    following = asyncio.create_task(follow({path: use}, look=0.01))
    await asyncio.sleep(0)  # it has seen the old one, and waits
    path.with_suffix(".new").write_text("new")
    path.with_suffix(".new").replace(path)
    await until(lambda: bool(taken))
    following.cancel()

    assert taken == ["new"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabConfig:
    """A lab on disk of which nothing runs."""
    for place in ("STATE", "RUN"):
        monkeypatch.setattr(f"netemu.lab.paths.{place}", tmp_path)
    return resolve(Topology(metadata=Metadata(name="t")))


def certificates(config: LabConfig) -> dict[str, str]:
    return {each.path.name: each.certificate for each in issued(config)}


def test_what_is_there_and_good_is_left(config: LabConfig) -> None:
    ensure_pki(config)
    first = certificates(config)
    ensure_pki(config)

    assert certificates(config) == first
    assert all(first.values())


def test_what_ended_while_the_lab_was_away_is_made_anew(config: LabConfig) -> None:
    ensure_pki(config)
    before = certificates(config)
    ensure_pki(config, now=lambda: time.time() + 1.1 * YEAR)
    after = certificates(config)

    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


async def test_all_but_kubelets_own_are_renewed_in_time(config: LabConfig) -> None:
    ensure_pki(config)
    before = certificates(config)
    # Renewed is what began long enough ago by this clock; what is new by it is good for a long time.
    shift = 0.8 * YEAR
    clock: Callable[[], float] = lambda: time.time() + shift  # noqa: E731
    keeping = asyncio.create_task(lab_renewal.keep_certificates(config, authority(config), now=clock, dice=lambda: 0.0))
    names = ("control-plane", "worker-1", "worker-2")
    theirs = {f"kubelet-{name}.{end}" for name in names for end in ("crt", "kubeconfig")}

    def changed() -> set[str]:
        return {name for name, text in certificates(config).items() if text != before[name]}

    await until(lambda: changed() >= before.keys() - theirs)
    keeping.cancel()

    assert theirs & changed() == set()


async def test_etcds_certificates_are_renewed_by_its_own_authority(config: LabConfig) -> None:
    three = TopologySpec(control_plane=ControlPlaneSpec(replicas=3, store="etcd"))
    config = resolve(Topology(metadata=Metadata(name="t"), spec=three))
    folder, hosts = LabPaths(config.name).pki, etcd_pki.hosts_of(config)
    ensure_pki(config)
    etcd_pki.ensure(folder, hosts)
    before = {each.path: each.certificate for each in etcd_pki.issued(folder, hosts)}
    etcd_pki.ensure(folder, hosts)
    assert {each.path: each.certificate for each in etcd_pki.issued(folder, hosts)} == before
    clock: Callable[[], float] = lambda: time.time() + 0.8 * YEAR  # noqa: E731
    keeping = asyncio.create_task(lab_renewal.keep_certificates(config, authority(config), now=clock, dice=lambda: 0.0))

    await until(lambda: all(path.read_text() != text for path, text in before.items()))
    keeping.cancel()

    ca = x509.load_pem_x509_certificate((folder / "etcd/ca.crt").read_bytes())
    for each in etcd_pki.issued(folder, hosts):
        x509.load_pem_x509_certificate(each.certificate.encode()).verify_directly_issued_by(ca)


def test_a_kubeconfig_and_a_pair_tell_their_certificate(tmp_path: Path) -> None:
    pair = Issued(tmp_path / "a.crt", "a", hosts=("a",))
    config = Issued(tmp_path / "b.kubeconfig", "b", server="https://127.0.0.1:1")
    assert (pair.certificate, config.certificate) == ("", "")

    for each in (pair, replace(config)):
        each.issue("lab", CA)
        assert validity(each.certificate)[1] > time.time()
