"""One attempt of a probe, with a real socket from the node's namespace, as a kubelet on that node would make it.

Upstream: kubernetes/pkg/probe/{http,tcp,grpc}. A redirect counts as success without being followed.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cache

from netemu.kernel import netns
from netemu.kubelet.probes import Outcome
from netemu.model.errors import KernelError
from netemu.model.hosts import endpoint_text
from netemu.model.pods import ContainerPort, GRPCAction, HTTPGetAction, Probe
from netemu.runtime.cri import ExecResult, RuntimeFailure

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LONGEST_HEAD = 64 * 1024
_USER_AGENT = "kube-probe/1.32"

Run = Callable[[tuple[str, ...]], Awaitable[ExecResult]]


async def attempt(probe: Probe, *, node_netns: str, address: str, ports: Sequence[ContainerPort], run: Run) -> Outcome:
    """Ask once. `address` is the Pod's, `ports` the container's (some are given by name), `run` executes in it."""
    try:
        if probe.http_get is not None:
            port = port_number(probe.http_get.port, ports)
            return await _http(probe.http_get, node_netns, probe.http_get.host or address, port)
        if probe.tcp_socket is not None:
            port = port_number(probe.tcp_socket.port, ports)
            (await _connect(node_netns, probe.tcp_socket.host or address, port)).close()
            return Outcome(True)
        if probe.grpc is not None:
            return await _grpc(probe.grpc, node_netns, address)
        if probe.exec is not None:
            return await _exec(probe.exec.command, run)
    except (OSError, KernelError, ValueError) as error:
        return Outcome(False, str(error))
    return Outcome(True)


def port_number(port: int | str, ports: Sequence[ContainerPort]) -> int:
    """A probe's port, which may be the name of a container port. Raises ValueError."""
    if isinstance(port, int):
        return port
    if port.isdecimal():
        return int(port)
    for one in ports:
        if one.name == port:
            return one.container_port
    raise ValueError(f"couldn't find port: {port}")


async def _connect(node_netns: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with netns.entered(node_netns):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except OSError as error:
        sock.close()
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ValueError(f"dial tcp {endpoint_text(host, port)}: connect: {why}") from error
    except BaseException:  # cancelled by the probe's timeout
        sock.close()
        raise
    return sock


async def _http(action: HTTPGetAction, node_netns: str, host: str, port: int) -> Outcome:
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    shown = endpoint_text(host, port)
    asked = f'Get "{action.scheme.lower()}://{shown}{path}"'
    try:
        sock = await _connect(node_netns, host, port)
    except ValueError as error:
        return Outcome(False, f"{asked}: {error}")
    headers = {"Host": shown, "User-Agent": _USER_AGENT, "Accept": "*/*", "Connection": "close"}
    headers |= {header.name: header.value for header in action.http_headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    context = _anything_goes() if action.scheme == "HTTPS" else None
    reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=host if context else None)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1", "replace"))
        answer = b""
        while b"\n" not in answer and len(answer) < _LONGEST_HEAD and (part := await reader.read(4096)):
            answer += part
    finally:
        writer.close()
    match = _STATUS.match(answer)
    if match is None:
        return Outcome(False, f"{asked}: malformed HTTP response")
    code = int(match[1])
    return Outcome(200 <= code < 400, f"HTTP probe failed with statuscode: {code}")


@cache
def _anything_goes() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # as upstream: a probe asks whether it answers, not who it is
    return context


async def _grpc(action: GRPCAction, node_netns: str, address: str) -> Outcome:
    from netemu.kubelet.grpc import check  # h2 is imported where a Pod has such a probe

    sock = await _connect(node_netns, address, action.port)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        problem = await check(reader, writer, action.service or "")
    finally:
        writer.close()
    return Outcome(not problem, problem)


async def _exec(command: tuple[str, ...], run: Run) -> Outcome:
    try:
        result = await run(command)
    except RuntimeFailure as error:
        return Outcome(False, error.message)
    return Outcome(result.exit_code == 0, result.output[:10240])
