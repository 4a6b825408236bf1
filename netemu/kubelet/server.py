"""The kubelet's own API, by which the API server reaches containers: upstream's paths, over HTTPS on port 10250.

    GET /containerLogs/NAMESPACE/POD/CONTAINER     what it wrote
    GET, POST /exec/NAMESPACE/POD/CONTAINER        a command, over WebSocket or SPDY
    GET, POST /attach/NAMESPACE/POD/CONTAINER      what a container writes from now on
    GET, POST /portForward/NAMESPACE/POD           connections to its ports
    GET /pods                                      the Pods of this node, as a PodList
    GET /healthz

Clients show a certificate of the cluster's authority and belong to `system:masters`, as the API server's own does;
whoever shows none may ask for health only. Without TLS (tests, a Unix socket) everybody may ask.
Upstream: `pkg/kubelet/server/server.go`.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import web

from netemu.kernel.inside import Stdio
from netemu.kernel.pidfd import Process
from netemu.kubelet.container_logs import LogOptions, read
from netemu.kubelet.execution import Session, Wanted, exit_code
from netemu.kubelet.port_forward import dial, serve_port_forward
from netemu.kubelet.streaming import serve_attach, serve_command
from netemu.model.errors import NetemuError
from netemu.model.pods import ContainerStatus as ApiContainerStatus
from netemu.model.pods import Pod
from netemu.runtime.cri import ContainerState, ContainerStatus, Runtime
from netemu.runtime.logs import Splitter, write

log = logging.getLogger(__name__)

PORT = 10250
_MASTERS = "system:masters"
_GOODBYE = 0.2
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}


class PodSource(Protocol):
    """What a kubelet tells of its Pods."""

    def find(self, namespace: str, name: str) -> Pod | None:
        """The Pod of that name on this node."""
        ...

    def pods(self) -> list[Pod]:
        """All of this node."""
        ...

    async def runtime_of(self, pod: Pod) -> Runtime | None:
        """What runs it; None before anything does."""
        ...


class KubeletServer:
    """Serves one node."""

    def __init__(self, source: PodSource) -> None:
        self._source = source
        self._runner: web.AppRunner | None = None

    async def start(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Serve on bound sockets; they are closed with the server."""
        app = web.Application(middlewares=[_checked])
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for path in ("/exec/{namespace}/{pod}/{container}", "/exec/{namespace}/{pod}/{uid}/{container}"):
            app.router.add_route("*", path, self._exec)
        for path in ("/attach/{namespace}/{pod}/{container}", "/attach/{namespace}/{pod}/{uid}/{container}"):
            app.router.add_route("*", path, self._attach)
        for path in ("/portForward/{namespace}/{pod}", "/portForward/{namespace}/{pod}/{uid}"):
            app.router.add_route("*", path, self._port_forward)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/healthz", _healthz)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=_GOODBYE
        )
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock, ssl_context=tls).start()

    async def close(self) -> None:
        """Stop at once."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        pod, runtime = await self._pod(request)
        try:
            options = LogOptions.of(request.query, datetime.now(UTC))
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        wanted = await self._attempt(pod, runtime, request.match_info["container"], previous=options.previous)
        assert runtime is not None
        path = runtime.container_log_path(wanted.id)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        if path is not None and path.exists():

            async def running() -> bool:
                now = await runtime.container_status(wanted.id)
                return now is not None and now.state is not ContainerState.EXITED

            async for piece in read(path, options, running):
                if piece:
                    await response.write(piece)
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        command = tuple(request.query.getall("command", []))
        if not command:
            raise web.HTTPBadRequest(text="you must provide a command")
        runtime, container = await self._running(request)

        async def start(stdio: Stdio) -> Process:
            return await runtime.exec(container.id, command, stdio)

        return await serve_command(request, _wanted(request), start)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        runtime, container = await self._running(request)
        wanted, path = _wanted(request), runtime.container_log_path(container.id)
        if path is not None and wanted.stdin and runtime.interactive(container.id):
            return await self._interactive(request, runtime, container.id, wanted, path)

        async def status() -> ContainerStatus | None:
            return await runtime.container_status(container.id)

        return await serve_attach(request, wanted, path, runtime.container_input_path(container.id), status)

    async def _interactive(
        self, request: web.Request, runtime: Runtime, container_id: str, wanted: Wanted, path: Path
    ) -> web.StreamResponse:
        """The client is whom the container has waited for: its command runs, and all ends with it."""
        splitters = {stream: Splitter(stream) for stream in ("stdout", "stderr")}

        def keep(stream: str, data: bytes) -> None:
            write(path, splitters[stream].feed(data))

        async def ended(code: int | None) -> None:
            write(path, b"".join(splitter.finish() for splitter in splitters.values()))
            await runtime.attached_exited(container_id, exit_code(code))

        async def start(stdio: Stdio) -> Process:
            return await runtime.attach(container_id, stdio)

        return await serve_command(request, wanted, start, Session(keep, ended))

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        pod, runtime = await self._pod(request)
        sandbox = await runtime.pod_sandbox_status(pod.metadata.uid) if runtime is not None else None
        if sandbox is None or not sandbox.ready:
            raise web.HTTPInternalServerError(text=f'sandbox of pod "{pod.name}" is not running')
        namespace = sandbox.config.netns
        return await serve_port_forward(request, lambda port: dial(namespace, port), pod.name)

    async def _running(self, request: web.Request) -> tuple[Runtime, ContainerStatus]:
        """The container that a URL names, and its runtime. Raises HTTPException."""
        pod, runtime = await self._pod(request)
        name = request.match_info["container"]
        every = await runtime.list_containers(pod.metadata.uid) if runtime is not None else []
        found = [one for one in every if one.name == name and one.state is ContainerState.RUNNING]
        if runtime is None or not found:
            raise web.HTTPInternalServerError(text=f'container not found ("{name}")')
        return runtime, found[-1]

    async def _pods(self, request: web.Request) -> web.Response:
        items = [msgspec.to_builtins(pod) for pod in self._source.pods()]
        body: dict[str, Any] = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _pod(self, request: web.Request) -> tuple[Pod, Runtime | None]:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._source.find(namespace, name)
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{name}" not found')
        return pod, await self._source.runtime_of(pod)

    async def _attempt(self, pod: Pod, runtime: Runtime | None, name: str, *, previous: bool) -> ContainerStatus:
        """The container's newest attempt that started, or the one that is its last state.

        Upstream: `pkg/kubelet/kubelet_pods.go` (validateContainerLogStatus).
        """
        spec = pod.spec
        if name not in [one.name for one in (*spec.containers, *spec.init_containers, *spec.ephemeral_containers)]:
            raise web.HTTPBadRequest(text=f"container {name} is not valid for pod {pod.name}")
        every = await runtime.list_containers(pod.metadata.uid) if runtime is not None else []
        found = [one for one in every if one.name == name and (one.started_at or one.finished_at)]
        if previous:
            last = _last_state(pod, name)
            found = [one for one in found if f"netemu://{one.id}" == last]
            if not found:
                raise web.HTTPBadRequest(text=f'previous terminated container "{name}" in pod "{pod.name}" not found')
        if not found:
            raise web.HTTPBadRequest(text=f'container "{name}" in pod "{pod.name}" is {_waiting(pod, name)}')
        return max(found, key=lambda one: one.attempt)


def _wanted(request: web.Request) -> Wanted:
    asked = {name: request.query.get(key) in ("1", "true") for name, key in _STREAMS.items()}
    return Wanted(**{**asked, "stderr": asked["stderr"] and not asked["tty"]})


def _last_state(pod: Pod, name: str) -> str:
    """The id of the attempt that is the container's last state."""
    return str((_status(pod, name).last_state.get("terminated") or {}).get("containerID", ""))


def _status(pod: Pod, name: str) -> ApiContainerStatus:
    told = pod.status
    statuses = (*told.container_statuses, *told.init_container_statuses, *told.ephemeral_container_statuses)
    return next((one for one in statuses if one.name == name), ApiContainerStatus(name))


def _waiting(pod: Pod, name: str) -> str:
    """Why it has not started, in the words that clients look for."""
    waiting = _status(pod, name).state.get("waiting") or {}
    reason = waiting.get("reason", "ContainerCreating")
    if reason == "ErrImagePull":
        return "waiting to start: image can't be pulled"
    if reason == "ImagePullBackOff":
        return "waiting to start: trying and failing to pull image"
    return f"waiting to start: {reason}"


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


@web.middleware
async def _checked(request: web.Request, handler: Any) -> web.StreamResponse:
    transport = request.transport
    if transport is not None and transport.get_extra_info("ssl_object") is not None and request.path != "/healthz":
        certificate = transport.get_extra_info("peercert") or {}
        subject = [pair for names in certificate.get("subject", ()) for pair in names]
        if not subject:
            return web.Response(status=401, text="Unauthorized")
        if ("organizationName", _MASTERS) not in subject:
            user = dict(subject).get("commonName", "")
            return web.Response(
                status=403, text=f"Forbidden (user={user}, verb=get, resource=nodes, subresource=proxy)"
            )
    try:
        answer: web.StreamResponse = await handler(request)
    except NetemuError as error:
        return web.Response(status=500, text=str(error))
    return answer
