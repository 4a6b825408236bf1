"""One member of a lab's control plane: what it shares with the others, and what is its own.

A lab on SQLite has one, with number 0. On etcd they are numbered from 1, each on a node of its own; the first sees to
what all of them need (`beginning`), and the others wait for that.

All members listen on the same port of the host's 127.0.0.1 (SO_REUSEPORT): the kernel gives each new connection to one
that lives, so the kubeconfig of the host survives the loss of any of them. One that has lost the store leaves the port
to the others, if there are any, until it has the store again; so it does with its socket for root. Whoever watches it
then is told to begin again, which is with another member.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from netemu.apiserver.http.server import ApiServer
from netemu.client.base import Client
from netemu.client.leaderelection import Elector
from netemu.kernel import netns
from netemu.lab.beginning import listen, prepare
from netemu.lab.config import LabConfig, NodeConfig, load_config
from netemu.lab.etcd_member import client_urls
from netemu.lab.paths import LabPaths
from netemu.lab.process import until
from netemu.lab.processes import control_planes
from netemu.model.errors import ApiError, UserError
from netemu.network import names
from netemu.store.base import Store, StoreError
from netemu.store.etcd import EtcdStore

log = logging.getLogger(__name__)

_LOOK_SECONDS, _ANSWER_SECONDS = 1.0, 3.0
"""How often a member sees whether the store is there, and how long it waits for an answer."""
_PATIENCE = 60.0
"""Seconds that a member waits for what the first one makes."""


@dataclass(frozen=True, slots=True)
class Member:
    """Which one this process is."""

    config: LabConfig
    number: int

    @property
    def first(self) -> bool:
        """Whether it does what is done once per lab."""
        return self.number <= 1

    @property
    def shared(self) -> bool:
        """Whether there may be others."""
        return self.number > 0

    @property
    def node(self) -> NodeConfig:
        """Where it is."""
        return self.config.control_planes[max(self.number - 1, 0)]

    @property
    def namespace(self) -> str:
        """Its node's network namespace."""
        return names.node_netns(self.config.name, self.node.name)

    @property
    def socket(self) -> Path:
        """Where it serves root on this machine."""
        return LabPaths(self.config.name).api_socket(self.process)

    @property
    def process(self) -> str:
        """The name of its process."""
        return control_planes(self.config.etcd_members)[max(self.number - 1, 0)]

    async def lead(self, client: Client, component: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do what only one member may do at a time."""
        if not self.shared:
            await work()
            return
        await Elector(client, component, f"{self.node.name}_{uuid.uuid4()}").run(work)


async def join_lab(lab: str, number: int) -> tuple[Member, socket.socket | None]:
    """This process as a member, and, if it is the only one, its socket on the host. The first makes what is missing.

    Raises UserError where no port is free, OSError where somebody else has the lab's.
    """
    paths = LabPaths(lab)
    if number > 1:
        await until(paths.kubeconfig.exists, within=_PATIENCE)
        return Member(load_config(lab), number), None
    listener, config = prepare(load_config(lab))
    return Member(config, number), listener


async def serve_host(member: Member, server: ApiServer, store: Store, tls: ssl.SSLContext) -> None:
    """Serve on the host together with the other members, until cancelled."""
    path = member.socket
    serving: list[Callable[[], Awaitable[None]]] = []
    while True:
        wanted = await _answers(store) or not _others_serve(path)
        if wanted and not serving:
            listener = listen(member.config.api_port, shared=True)
            serving = [await server.start([listener], tls), await server.start([unix_socket(path)], None)]
        elif not wanted:
            if serving:
                log.warning("the store is away: the port on the host, and who watches, are left to those who have it")
                path.unlink(missing_ok=True)
            for stop in serving:
                await stop()
            serving = []
            # Again and again: a client may begin the next one on a connection that it has kept.
            server.watches.end()
        await asyncio.sleep(_LOOK_SECONDS)


def unix_socket(path: Path) -> socket.socket:
    """Listen for root on this machine."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(128)
    return listener


def _others_serve(own: Path) -> bool:
    """Whether another member serves on the host; without any, a refusal is better than no answer."""
    for path in own.parent.glob("control-plane*.sock"):
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            if path != own:
                sock.connect(str(path))
                return True
    return False


async def _answers(store: Store) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await store.newest()
    except (ApiError, StoreError, TimeoutError):
        return False
    return True


async def open_etcd(member: Member, tls: ssl.SSLContext) -> EtcdStore:
    """The lab's store, as soon as a majority of its members is up."""
    await until(lambda: netns.exists(member.namespace))
    urls = client_urls(member.config, member.node)
    while True:
        try:
            return await EtcdStore.open(urls, tls=tls, namespace=member.namespace)
        except UserError as error:
            log.warning("%s; trying on", error)
            await asyncio.sleep(0.1)
