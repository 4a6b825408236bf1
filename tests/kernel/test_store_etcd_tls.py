"""Members that talk TLS, with each other and with the store: certificates decide who gets in."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from netemu.kernel import netns
from netemu.lab import etcd_pki
from netemu.lab.authority import Authority
from netemu.model.errors import UserError
from netemu.store.etcd import EtcdStore
from tests.kernel.etcd_members import Members, members


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    etcd_pki.ensure(folder, [])
    return folder


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory, pki: Path) -> Iterator[Members]:
    with members(tmp_path_factory.mktemp("etcd"), 3, etcd_pki.member_flags(pki)) as cluster:
        yield cluster


async def test_what_is_written_through_one_member_is_read_through_another(etcd: Members, pki: Path) -> None:
    tls = etcd_pki.client_tls(pki)
    one, other = await EtcdStore.open(etcd.endpoints, tls=tls), await EtcdStore.open(etcd.endpoints[::-1], tls=tls)
    try:
        revision = await one.create("/tls/a", b"1")

        assert await other.newest() >= revision
        assert await other.get("/tls/a") == ("/tls/a", b"1", revision)
    finally:
        await one.close()
        await other.close()


async def test_members_show_a_renewed_certificate_and_stay_together(etcd: Members, pki: Path) -> None:
    def shown() -> str:
        tls, url = etcd_pki.client_tls(pki), urlsplit(etcd.endpoints[0])
        with (
            socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as plain,
            tls.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")

    before = shown()
    signer = etcd_pki.authority(pki, 3600.0)
    for each in etcd_pki.issued(pki, []):
        each.issue("", signer)
    after, server = shown(), (pki / "etcd/server.crt").read_text()
    store = await EtcdStore.open(etcd.endpoints[1:], tls=etcd_pki.client_tls(pki))
    try:
        assert await store.create("/renewed", b"1") > 0
    finally:
        await store.close()

    assert before != after == server


@pytest.mark.parametrize("shows", ["nothing", "a certificate of the cluster's authority"])
async def test_who_has_no_certificate_of_etcds_own_authority_is_not_served(
    etcd: Members, pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shows: str
) -> None:
    monkeypatch.setattr("netemu.store.etcd_gateway.PATIENCE", 0.1)
    tls = ssl.create_default_context(cafile=str(pki / "etcd/ca.crt"))
    if shows != "nothing":
        certificate, key = Authority.create("kubernetes").issue("kubernetes-admin", ("system:masters",))
        (tmp_path / "both.pem").write_bytes(certificate + key)
        tls.load_cert_chain(tmp_path / "both.pem")

    with pytest.raises(UserError, match="store https://"):
        await EtcdStore.open(etcd.endpoints, tls=tls)


async def test_a_member_that_another_authority_signed_is_not_trusted(
    etcd: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netemu.store.etcd_gateway.PATIENCE", 0.1)
    etcd_pki.ensure(tmp_path, [])

    with pytest.raises(UserError, match="certificate verify failed"):
        await EtcdStore.open(etcd.endpoints, tls=etcd_pki.client_tls(tmp_path))


async def test_a_key_with_a_lease_goes_when_nobody_puts_it_again(etcd: Members, pki: Path) -> None:
    store = await EtcdStore.open(etcd.endpoints, tls=etcd_pki.client_tls(pki))
    try:
        await store.put_for("/tls/short", b"1", 1)
        await store.put_for("/tls/long", b"1", 600)
        async with asyncio.timeout(20):
            async with aclosing(store.watch("/tls/short", await store.newest() - 2)) as batches:
                async for batch in batches:
                    if any(change.value is None for change in batch):
                        break

        assert [item.key for item in (await store.list("/tls/")).items if item.key != "/tls/a"] == ["/tls/long"]
    finally:
        await store.close()


async def test_a_store_is_reached_from_the_network_namespace_it_is_told(
    etcd: Members, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netemu.store.etcd_gateway.PATIENCE", 0.1)
    netns.create("t-store")
    try:
        with pytest.raises(UserError, match="store https://"):
            await EtcdStore.open(etcd.endpoints, tls=etcd_pki.client_tls(pki), namespace="t-store")
    finally:
        netns.delete("t-store")
