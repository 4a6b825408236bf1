"""`netemu proxy`: kube-proxy alone, in the namespace that this process is in."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

from netemu.kernel import libc
from netemu.kernel.iptables import choose
from netemu.model.collector import look_at_old_objects_seldom
from netemu.model.errors import NetemuError, UserError
from netemu.proxy import lock
from netemu.proxy.config import MODES, KubeProxyConfiguration, load
from netemu.proxy.config_checks import without_effect
from netemu.proxy.engine import Engine
from netemu.proxy.modes import Site, mode_of
from netemu.proxy.server import ProxyServer
from netemu.proxy.services import Family, family_of
from netemu.proxy.tracker import Table

log = logging.getLogger(__name__)


async def clean_up(config_path: Path | None = None) -> None:
    """Remove the rules of every mode, also where those of one cannot be removed; without a file, by the defaults.

    Raises UserError while a kube-proxy works in the namespace, NetemuError, the first there was, after all were tried.
    """
    config = load(config_path) if config_path else KubeProxyConfiguration()
    refused: list[NetemuError] = []
    with lock.take(""):
        for mode in MODES:
            try:
                await mode_of(mode).cleanup(config, Site())
            except NetemuError as error:
                refused.append(error)
    if refused:
        raise refused[0]


async def run_standalone(config_path: Path, *, hostname_override: str = "", init_only: bool = False) -> None:
    """Program against the API server of the kubeconfig until cancelled.

    With `init_only` do what needs privileges (sysctls, looking for tools and kernel features), and return. Raises
    NetemuError.
    """
    from netemu.client.http import HttpClient
    from netemu.client.kubeconfig import in_cluster, load_kubeconfig

    config = load(config_path)
    node_name = (hostname_override or config.hostname_override or socket.gethostname()).strip().lower()
    if not node_name:
        raise UserError("no node name: set hostnameOverride or give --hostname-override")
    found = await families(config, Site())
    if init_only:
        await _set_up(config, node_name, found)
        return
    if fields := without_effect(config):
        log.warning("%s: without effect here: %s", config_path, ", ".join(fields))
    _set_oom_score(config.oom_score_adj)
    look_at_old_objects_seldom()
    path = config.client_connection.kubeconfig
    credentials = load_kubeconfig(config_path.parent / path) if path else in_cluster()
    async with HttpClient(credentials, user_agent="kube-proxy") as client:
        server = ProxyServer(client, config, node_name=node_name, families=found)
        settling = asyncio.create_task(_settle(server))
        try:
            await server.run()
        except* NetemuError as group:
            raise _first(group) from group
        finally:
            settling.cancel()


async def _settle(server: ProxyServer) -> None:
    """What the first lists and the first sync took goes back, once; later ones are small."""
    await server.until()
    libc.return_free_memory()


def _first(group: BaseException) -> BaseException:
    """What went wrong first, out of the groups that task groups wrap it in."""
    return _first(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group


async def _set_up(config: KubeProxyConfiguration, node_name: str, found: tuple[Family, ...]) -> None:
    engine = Engine(config, node_name, Site(), found)
    try:
        await engine.prepare(lambda: None, _ignore)
    finally:
        engine.close()


async def _ignore(_family: Family, _table: Table) -> None:
    """Nothing is synced, so nobody is told."""


def _set_oom_score(score: int) -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score))
    except OSError as error:  # without the right to it the process works as well, until memory runs out
        log.warning("oomScoreAdj %d not set: %s", score, error.strerror)


async def families(config: KubeProxyConfiguration, site: Site) -> tuple[Family, ...]:
    """The address families that kernel and tools can do here, the one of `bindAddress` first."""
    found = [Family.IPV4]
    if Path("/proc/self/net/if_inet6").exists() and (config.mode == "nftables" or await _has_ip6tables(site)):
        found.append(Family.IPV6)
    return tuple(sorted(found, key=lambda f: f is not family_of(config.bind_address)))


async def _has_ip6tables(site: Site) -> bool:
    try:
        tool = await choose(site.netns, ipv6=True, lock_file=site.lock_file)
        return await tool.has_chain("nat", "POSTROUTING")
    except NetemuError:
        return False
