"""Emulated containers: which sockets an image gets, and what they answer (over loopback)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netemu.kubelet.grpc import check
from netemu.runtime.cri import ContainerConfig, ContainerState, PortMapping, RuntimeFailure, SandboxConfig
from netemu.runtime.emulated import EmulatedRuntime, nap
from netemu.runtime.images import Listener, full_name, image_id, listeners, short_name
from netemu.runtime.sandboxes import load_containers, load_sandbox
from netemu.runtime.servers.answers import http_answer, udp_answer
from netemu.runtime.servers.http1 import BadMessage, Request, RequestReader, looks_like_http
from netemu.runtime.servers.identity import Identity

WHO = Identity("web-1", "shop", "n1", "web-1")
CLIENT = ("10.244.2.7", 40000)


def config(image: str, *words: str, ports: tuple[PortMapping, ...] = ()) -> ContainerConfig:
    return ContainerConfig(name="c", image=image, args=words, ports=ports)


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        pytest.param(config("registry.k8s.io/pause:3.9"), (), id="pause serves nothing"),
        pytest.param(config("busybox"), (), id="unknown without ports serves nothing"),
        pytest.param(config("nginx:1.27@sha256:00"), (Listener("TCP", 80),), id="a well-known image without ports"),
        pytest.param(
            config("coredns/coredns:1.11"),
            (Listener("TCP", 53), Listener("UDP", 53)),
            id="well known on both protocols",
        ),
        pytest.param(
            config("nginx", ports=(PortMapping(container_port=8080),)),
            (Listener("TCP", 8080),),
            id="declared ports win",
        ),
        pytest.param(
            config("x/y", ports=(PortMapping(container_port=5, protocol="UDP"),)), (Listener("UDP", 5),), id="UDP"
        ),
        pytest.param(config("registry.k8s.io/e2e-test-images/agnhost:2.40"), (), id="agnhost pauses by default"),
        pytest.param(
            config("agnhost:2.40", "netexec"),
            (Listener("TCP", 8080, "netexec"), Listener("UDP", 8081, "netexec")),
            id="netexec on its default ports",
        ),
        pytest.param(
            config("agnhost", "/agnhost", "netexec", "--http-port=83", "--udp-port", "-1"),
            (Listener("TCP", 83, "netexec"),),
            id="netexec with flags and without UDP",
        ),
        pytest.param(
            config("agnhost", "serve-hostname"), (Listener("TCP", 9376, "serve-hostname"),), id="serve-hostname"
        ),
        pytest.param(
            config("agnhost", "serve-hostname", "--http=false", "--tcp", "--udp", "--port=7"),
            (Listener("TCP", 7, "serve-hostname-tcp"), Listener("UDP", 7, "serve-hostname")),
            id="serve-hostname without HTTP",
        ),
        pytest.param(
            config("registry.k8s.io/serve_hostname"), (Listener("TCP", 9376, "serve-hostname"),), id="the old one"
        ),
    ],
)
def test_sockets_of_an_image(container: ContainerConfig, expected: tuple[Listener, ...]) -> None:
    assert expected == listeners(container)


def test_strict_images_refuse_what_nobody_knows() -> None:
    with pytest.raises(RuntimeFailure) as caught:
        listeners(config("example.com/shop/web:1"), strict=True)

    assert caught.value.reason == "ErrImagePull"


@pytest.mark.parametrize(
    ("image", "short", "full"),
    [
        ("nginx", "nginx", "docker.io/library/nginx:latest"),
        ("shop/web:1", "web", "docker.io/shop/web:1"),
        ("localhost:5000/a/b", "b", "localhost:5000/a/b:latest"),
        ("registry.k8s.io/x@sha256:1f", "x", "registry.k8s.io/x@sha256:1f"),
    ],
)
def test_image_names(image: str, short: str, full: str) -> None:
    assert (short, full) == (short_name(image), full_name(image))


def test_image_id_is_the_digest_the_manifest_names() -> None:
    assert image_id("a.b/x:1@sha256:1f") == "a.b/x@sha256:1f"


def answer(target: str, program: str = "netexec", **headers: str) -> tuple[int, bytes]:
    response = http_answer(program, WHO, Request("GET", target, list(headers.items())), CLIENT, 8080)
    return response.status, response.body


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/hostname", (200, b"web-1")),
        ("/hostName", (200, b"web-1")),
        ("/clientip", (200, b"10.244.2.7:40000")),
        ("/echo?msg=a%20b", (200, b"a b")),
        ("/echo?msg=x&code=503", (503, b"x")),
        ("/echo?msg=x&code=%C2%B2", (200, b"x")),
        ("/healthz", (200, b"")),
        ("/header?key=X-Y", (200, b"z")),
        ("/redirect?location=/b&code=301", (301, b"")),
    ],
)
def test_netexec_urls(target: str, expected: tuple[int, bytes]) -> None:
    assert expected == answer(target, **{"X-Y": "z"})


def test_netexec_root_tells_the_time_and_shell_is_refused() -> None:
    assert answer("/")[1].startswith(b"NOW: ")
    assert answer("/shell?cmd=id")[0] == 403


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"hostname", b"web-1"), (b"echo a b\n", b"a b"), (b"clientip", b"10.244.2.7:40000"), (b"?", b"")],
)
def test_netexec_datagrams(data: bytes, expected: bytes) -> None:
    assert expected == udp_answer("netexec", WHO, data, CLIENT, 8081)


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"POST /x", None),
        (b"GE", None),
        (b"GET key\r\n", False),
        (b"*1\r\n$4\r\nPING\r\n", False),
        (b"\x16\x03\x01", False),
    ],
)
def test_telling_http_from_anything_else(data: bytes, verdict: bool | None) -> None:
    assert verdict is looks_like_http(data)


def test_requests_are_found_however_the_bytes_are_cut() -> None:
    raw = (
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        b"PUT /b HTTP/1.0\r\nContent-Length: 2\r\n\r\nhiGET /c HTTP/1.1\r\n\r\n"
    )
    for size in (1, 3, 7, len(raw)):
        reader, found = RequestReader(), []
        for start in range(0, len(raw), size):
            reader.feed(raw[start : start + size])
            while (request := reader.next()) is not None:
                found.append((request.method, request.target, request.body, request.keep_alive))

        assert found == [("POST", "/a", b"abcde", True), ("PUT", "/b", b"hi", False), ("GET", "/c", b"", True)]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nbad\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n",
        b"G" * 70000,
    ],
)
def test_nonsense_is_refused(raw: bytes) -> None:
    reader = RequestReader()
    reader.feed(raw)

    with pytest.raises(BadMessage):
        reader.next()


# --- real sockets


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def sandbox(directory: Path) -> SandboxConfig:
    return SandboxConfig(
        pod_uid="u1", pod_name="web-1", pod_namespace="shop", node_name="n1", directory=str(directory / "u1"), netns="",
        hostname="web-1", addresses=("127.0.0.1",),
    )  # fmt: skip


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[EmulatedRuntime]:
    one = EmulatedRuntime("n1", tmp_path)
    await one.start()
    await one.run_pod_sandbox(sandbox(tmp_path))
    yield one
    await one.close()
    await asyncio.sleep(0)


async def run(runtime: EmulatedRuntime, port: int, protocol: str = "TCP", name: str = "c") -> str:
    ports = (PortMapping(container_port=port, protocol=protocol),)
    container = await runtime.create_container("u1", ContainerConfig(name=name, image="x/y", ports=ports))
    await runtime.start_container(container)
    return container


async def talk(port: int, *messages: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for message in messages:
        writer.write(message)
        await writer.drain()
    writer.write_eof()
    data = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return data


async def test_http_echo_keeps_the_connection(runtime: EmulatedRuntime) -> None:
    port = free_port()
    await run(runtime, port)

    data = await talk(port, b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", b"HEAD /b HTTP/1.1\r\n\r\n")

    head, _, rest = data.partition(b"\r\n\r\n")
    body, _, second = rest.partition(b"\n")
    assert b"X-Netemu-Pod: web-1" in head
    assert ("POST", "/a", "hi", port) == tuple(json.loads(body)[key] for key in ("method", "path", "body", "port"))
    assert second.startswith(b"HTTP/1.1 200")
    assert second.endswith(b"\r\n\r\n")


async def test_a_client_that_says_nothing_learns_whom_it_reached(runtime: EmulatedRuntime) -> None:
    port = free_port()
    await run(runtime, port)

    assert json.loads(await talk(port))["pod"] == "web-1"


@pytest.mark.parametrize("service", ["", "shop.Cart"])
async def test_grpc_health_is_serving(runtime: EmulatedRuntime, service: str) -> None:
    port = free_port()
    await run(runtime, port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    problem = await asyncio.wait_for(check(reader, writer, service), 5)

    writer.close()
    await writer.wait_closed()
    assert problem == ""


async def test_a_datagram_comes_back_from_where_it_was_sent_to(runtime: EmulatedRuntime) -> None:
    port = free_port(socket.SOCK_DGRAM)
    await run(runtime, port, "UDP")
    loop = asyncio.get_running_loop()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_sendto(sock, b"hello", ("127.0.0.9", port))
        data, sender = await asyncio.wait_for(loop.sock_recvfrom(sock, 2000), 5)

    identity, _, echoed = data.partition(b"\n")
    assert ("127.0.0.9", port) == sender
    assert (json.loads(identity)["protocol"], echoed) == ("UDP", b"hello")


async def test_a_second_listener_on_a_port_exits_and_says_why(runtime: EmulatedRuntime) -> None:
    exits: list[str] = []
    runtime.subscribe(lambda event: exits.append(event.container_id))
    port = free_port()
    await run(runtime, port)

    second = await run(runtime, port, name="other")

    status = await runtime.container_status(second)
    log = runtime.container_log_path(second)
    assert [second] == exits
    assert status is not None
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 1)
    assert log is not None
    assert "address already in use" in log.read_text().lower()


async def test_stopping_waits_for_open_connections_and_only_for_those(runtime: EmulatedRuntime) -> None:
    port = free_port()
    container = await run(runtime, port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"not http\n")
    await reader.readline()

    stopping = asyncio.create_task(runtime.stop_container(container, 30))
    await asyncio.sleep(0)
    writer.write(b"still here\n")
    await reader.readline()
    still_served = await reader.readline()
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(stopping, 5)

    status = await runtime.container_status(container)
    assert still_served == b"still here\n"
    assert status is not None
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 0)


async def test_a_connection_that_stays_is_cut_when_the_grace_period_ends(runtime: EmulatedRuntime) -> None:
    port = free_port()
    container = await run(runtime, port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"not http\n")
    await reader.readline()

    await runtime.stop_container(container, 0.05)

    assert await asyncio.wait_for(reader.read(), 5) == b"not http\n"
    writer.close()
    await writer.wait_closed()


async def test_a_new_runtime_serves_what_the_old_one_did(runtime: EmulatedRuntime, tmp_path: Path) -> None:
    port = free_port()
    container = await run(runtime, port)
    before = await runtime.container_status(container)
    await runtime.close()
    await asyncio.sleep(0)

    successor = EmulatedRuntime("n1", tmp_path)
    await successor.start()
    data = await talk(port)
    after = await successor.container_status(container)
    await successor.close()

    assert json.loads(data)["pod"] == "web-1"
    assert before == after


async def test_init_containers_end_at_once(runtime: EmulatedRuntime) -> None:
    container = await runtime.create_container("u1", ContainerConfig(name="i", image="x", init=True))
    await runtime.start_container(container)

    status = await runtime.container_status(container)
    assert status is not None
    assert (status.state, status.reason) == (ContainerState.EXITED, "Completed")


async def test_a_removed_sandbox_leaves_no_files(runtime: EmulatedRuntime, tmp_path: Path) -> None:
    await run(runtime, free_port())
    was_there = load_sandbox(tmp_path / "u1") is not None and len(load_containers(tmp_path / "u1")) == 1

    await runtime.remove_pod_sandbox("u1")

    assert was_there
    assert not (tmp_path / "u1").exists()


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        (("sleep", "5"), 5),
        (("/bin/sh", "-c", "sleep 15"), 15),
        (("bash", "-c", "/bin/sleep 0.5s"), 0.5),
        (("nginx", "-s", "quit"), 0),
        (("sh", "-c", "sleep 5 && nginx -s quit; sleep 2"), 7),
        (("no-sleep", "5"), 0),
    ],
)
def test_of_commands_only_sleep_takes_time(command: tuple[str, ...], seconds: float) -> None:
    assert nap(command) == seconds
