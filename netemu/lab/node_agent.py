"""The node agent process of a lab: the network, and kubelet and kube-proxy of every node on this machine.

Everything it makes lives in namespaces and on disk, so that it can be killed and started again: `underlay.build`
finds what is there, kubelets adopt running Pods, proxies find their rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from netemu.client import Credentials, HttpClient, Informer, load_kubeconfig
from netemu.client.rotation import follow
from netemu.kernel.nftables import NftNetlink
from netemu.kubelet.certificates import keep_client_certificate, keep_serving_certificate
from netemu.kubelet.kubelet import Kubelet
from netemu.kubelet.settings import KubeletSettings, NodeFacts
from netemu.lab import pki
from netemu.lab.balancer import balance
from netemu.lab.config import PROXY_MODE_ANNOTATION, LabConfig, NodeConfig, load_config, write_file
from netemu.lab.fd_client import KeptSockets
from netemu.lab.kubelets import serve_kubelets
from netemu.lab.network_plan import network_plan, resolvers
from netemu.lab.node_local_dns import cluster_dns_of_pods
from netemu.lab.outside import serve_outside
from netemu.lab.paths import LabPaths
from netemu.lab.process import run, until
from netemu.model.certificates import NODE_PREFIX
from netemu.model.durations import Duration
from netemu.model.errors import NetemuError
from netemu.model.node_labels import kubelet_may_set
from netemu.model.objects import Service, Taint
from netemu.model.resources import SERVICES
from netemu.network import names, underlay
from netemu.network.hostports import HostPorts
from netemu.network.plan import NodePlan
from netemu.network.pods import PodNetwork
from netemu.proxy.config import IptablesConfiguration, KubeProxyConfiguration, NftablesConfiguration
from netemu.proxy.server import ProxyServer
from netemu.proxy.services import family_of
from netemu.runtime.cri import Runtime
from netemu.runtime.emulated import EmulatedRuntime
from netemu.runtime.process import ProcessRuntime
from netemu.runtime.socket_store import NoSocketStore, SocketStore, container_of

log = logging.getLogger(__name__)

_SYNC_PERIOD = 0.03
"""Seconds between two syncs of a proxy: upstream's second is a limit of its scale, and people wait for labs."""

_PROXY_PAUSE = 5.0


async def node_agent(lab: str, channel: int = -1, index: int = -1) -> None:
    """Run every node of a lab until cancelled. `channel` and `index` are descriptors: see `fd_client`."""
    config, paths = load_config(lab), LabPaths(lab)
    store = KeptSockets.inherited(channel, index) if channel >= 0 else NoSocketStore()
    await _forget_ended(store, paths)
    underlay.build(network_plan(config))
    _write_node_files(config, paths)
    await until(paths.kubeconfig.exists)
    async with contextlib.AsyncExitStack() as stack:
        renewed: dict[Path, Callable[[], None]] = {}

        async def client_of(component: str, user_agent: str) -> HttpClient:
            """Every kubelet is a user of its own, as upstream's are; all proxies are one."""
            path = paths.component_kubeconfig(component)
            client = HttpClient(load_kubeconfig(path), user_agent=user_agent)
            renewed[path] = lambda: client.use(load_kubeconfig(path))
            return await stack.enter_async_context(client)

        client, for_proxies = await client_of("node-agent", "netemu"), await client_of("kube-proxy", "kube-proxy")
        proxies = {node.name: _proxy(config, node, for_proxies) for node in config.nodes}
        services = Informer(client, SERVICES, Service)
        clients = {node.name: await client_of(f"kubelet-{node.name}", "kubelet") for node in config.nodes}
        kubelets = {node.name: _kubelet(config, node, clients[node.name], services, store) for node in config.nodes}
        await stack.enter_async_context(_status(paths, proxies))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(services.run())
            tasks.create_task(balance(config, client, services))
            for name, proxy in proxies.items():
                tasks.create_task(kubelets[name].run())
                tasks.create_task(_keep_running(proxy))
            for node in config.nodes:
                tasks.create_task(_keep_certificates(config, node, clients[node.name]))
            tasks.create_task(follow(renewed))
            tasks.create_task(serve_outside(config, client))
            tasks.create_task(serve_kubelets(config, kubelets))
            log.info("running %d nodes of lab %s", len(config.nodes), lab)


async def _keep_certificates(config: LabConfig, node: NodeConfig, client: HttpClient) -> None:
    """A kubelet asks for its next certificates itself; what is written is taken up by whoever follows the files."""
    path = LabPaths(config.name).component_kubeconfig(f"kubelet-{node.name}")
    serving, key_path, _ = pki.kubelet_certificate(config.name, node.name)

    def install(new: Credentials) -> None:
        client.use(new)
        certificate, key = new.client_certificate.encode(), new.client_key.encode()
        user = f"{NODE_PREFIX}{node.name}"
        text = pki.kubeconfig(config.name, new.server, new.ca.encode(), user, certificate, key)
        write_file(path, text, mode=0o600)

    def serve(certificate: bytes, key: bytes) -> None:
        write_file(key_path, key, mode=0o600)
        write_file(serving, certificate)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_client_certificate(client, node.name, load_kubeconfig(path), install))
        hosts, now = (node.name, *node.addresses), serving.read_text()
        tasks.create_task(keep_serving_certificate(client, node.name, hosts, now, serve))


def _write_node_files(config: LabConfig, paths: LabPaths) -> None:
    hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    hosts += [f"{address}\t{node.name}" for node in config.nodes for address in node.addresses]
    write_file(paths.node_hosts, "\n".join([*hosts, ""]).encode())
    write_file(paths.node_resolv_conf, "".join(f"nameserver {one}\n" for one in resolvers(config)).encode())


async def _forget_ended(store: SocketStore, paths: LabPaths) -> None:
    """Close what is kept for containers that are gone; kubelets see to those whose Pods are."""
    if isinstance(store, KeptSockets):
        here = {path.stem for path in paths.pods.glob("*/containers/*.json")}
        await store.forget([name for name in store.left if container_of(name) not in here])


def _kubelet(
    config: LabConfig, node: NodeConfig, client: HttpClient, services: Informer[Service], store: SocketStore
) -> Kubelet:
    paths = LabPaths(config.name)
    plan = NodePlan(node.name, node.addresses, node.pod_cidrs)
    facts = NodeFacts(
        name=node.name,
        addresses=node.addresses,
        netns=names.node_netns(config.name, node.name),
        pod_cidrs=node.pod_cidrs,
        labels={key: value for key, value in node.labels.items() if kubelet_may_set(key)},
        taints=tuple(Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in node.taints),
    )
    settings = KubeletSettings(
        pods_dir=str(paths.pods),
        cluster_dns=cluster_dns_of_pods(config),
        cluster_domain=config.dns_domain,
        resolv_conf=str(paths.node_resolv_conf),
        hosts_file=str(paths.node_hosts),
    )
    runtimes: dict[str, Runtime] = {
        "emulated": EmulatedRuntime(node.name, paths.pods, strict_images=config.strict_images, store=store),
        "process": ProcessRuntime(node.name, paths.pods),
    }
    network = PodNetwork(config.name, plan, node.link.mtu)
    host_ports = HostPorts(lambda: NftNetlink(facts.netns))
    return Kubelet(
        client, facts, runtimes, network, settings, lab=config.name, services=services, host_ports=host_ports
    )


async def _keep_running(proxy: ProxyServer) -> None:
    """A node whose proxy cannot run is a broken node, not a broken lab: say why, and try again."""
    while True:
        try:
            await proxy.run()
        except* NetemuError as group:
            proxy.refused = "; ".join(str(error) for error in group.exceptions)
            log.error("proxy %s: %s; again in %.0f s", proxy.node_name, proxy.refused, _PROXY_PAUSE)
        await asyncio.sleep(_PROXY_PAUSE)


def _proxy(config: LabConfig, node: NodeConfig, client: HttpClient) -> ProxyServer:
    settings = KubeProxyConfiguration(
        mode=config.proxy_mode,
        cluster_cidr=",".join(config.pod_cidrs),
        iptables=IptablesConfiguration(min_sync_period=Duration(_SYNC_PERIOD)),
        nftables=NftablesConfiguration(min_sync_period=Duration(_SYNC_PERIOD)),
    )
    netns = names.node_netns(config.name, node.name)
    state_dir = LabPaths(config.name).proxies / node.name
    state_dir.mkdir(parents=True, exist_ok=True)
    return ProxyServer(
        client,
        settings,
        node_name=node.name,
        netns=netns,
        state_dir=state_dir,
        families=tuple(map(family_of, config.service_cidrs)),
        mode_annotation=PROXY_MODE_ANNOTATION,
    )


@contextlib.asynccontextmanager
async def _status(paths: LabPaths, proxies: Mapping[str, ProxyServer]) -> AsyncIterator[None]:
    """Tell whoever connects to the agent's socket what each node's proxy has programmed, as JSON."""

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nodes: dict[str, Any] = {name: {"proxy": _programmed(proxy)} for name, proxy in proxies.items()}
        writer.write(msgspec.json.encode({"nodes": nodes}))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    paths.agent_socket.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(tell, str(paths.agent_socket))
    paths.agent_socket.chmod(0o600)
    async with server:
        yield


def _programmed(proxy: ProxyServer) -> dict[str, str]:
    done = proxy.programmed
    return {
        "mode": proxy.mode,
        "services": done.services,
        "endpointSlices": done.endpoint_slices,
        "error": done.error,
        "refused": proxy.refused,
        "decided": proxy.decided,
    }


if __name__ == "__main__":
    run(lambda lab: node_agent(lab, *map(int, sys.argv[2:])))
