"""Which server an emulated container gets: from its image, command and declared ports. Pure.

pause and anything told to pause               nothing; it just is there
agnhost netexec, serve-hostname and friends    those programs' URLs, commands, ports and flags
everything else                                an echo on its declared ports, or on those its image is known for
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from netemu.runtime.cri import ContainerConfig, PortMapping, RuntimeFailure

_WELL_KNOWN: dict[str, tuple[int, ...]] = {
    "nginx": (80,), "nginx-unprivileged": (8080,), "httpd": (80,), "caddy": (80, 443), "traefik": (80,),
    "haproxy": (80,), "envoy": (10000,),
    "redis": (6379,), "valkey": (6379,), "postgres": (5432,), "mysql": (3306,), "mariadb": (3306,),
    "mongo": (27017,), "memcached": (11211,), "rabbitmq": (5672, 15672), "nats": (4222, 8222), "etcd": (2379, 2380),
    "zookeeper": (2181,), "kafka": (9092,), "cassandra": (9042,), "elasticsearch": (9200, 9300), "influxdb": (8086,),
    "whoami": (80,), "http-echo": (5678,), "echo-server": (80,), "echoserver": (8080,), "http-https-echo": (8080, 8443),
    "hello-app": (8080,), "hello-kubernetes": (8080,), "podinfo": (9898, 9999), "httpbin": (80,), "go-httpbin": (8080,),
    "prometheus": (9090,), "grafana": (3000,), "alertmanager": (9093,), "node-exporter": (9100,), "registry": (5000,),
    "wordpress": (80,), "ghost": (2368,), "tomcat": (8080,), "jetty": (8080,), "consul": (8500,), "vault": (8200,),
    "minio": (9000,), "guestbook": (3000,), "gb-frontend": (80,), "gb-redis-follower": (6379,),
    "kubernetes-bootcamp": (8080,), "nginx-slim": (80,), "iperf3": (5201,), "sshd": (22,), "metrics-server": (10250,),
}  # fmt: skip
"""Last path element of an image to the TCP ports its documentation names."""

_WELL_KNOWN_UDP: dict[str, tuple[int, ...]] = {"coredns": (53,), "bind9": (53,), "unbound": (53,), "statsd": (8125,)}
_SILENT = frozenset({"pause", "busybox", "alpine", "ubuntu", "debian", "curl", "netshoot", "toolbox", "bash"})
"""Images that serve nothing by themselves."""

_NO_VALUE = frozenset({"--http", "--tcp", "--udp", "--close"})
"""Flags of `serve-hostname` that stand alone."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket to open. `program` is echo, netexec or serve-hostname."""

    protocol: str
    """TCP or UDP."""
    port: int
    program: str = "echo"


def listeners(config: ContainerConfig, *, strict: bool = False) -> tuple[Listener, ...]:
    """The sockets a container opens. Raises RuntimeFailure (ErrImagePull) for an unknown image if `strict`."""
    image = short_name(config.image)
    words = [*config.command, *config.args]
    if image == "agnhost":
        return _agnhost(words, config.ports)
    if image == "serve_hostname":
        return _serve_hostname(words)
    if image == "pause":
        return ()
    if strict and image not in _WELL_KNOWN and image not in _WELL_KNOWN_UDP and image not in _SILENT:
        raise RuntimeFailure(
            "ErrImagePull",
            f'failed to pull and unpack image "{config.image}": not an emulated image and --strict-images is on',
        )
    if config.ports:
        return _echo(config.ports)
    tcp = [PortMapping(container_port=port) for port in _WELL_KNOWN.get(image, ())]
    both = [
        PortMapping(container_port=port, protocol=protocol)
        for port in _WELL_KNOWN_UDP.get(image, ())
        for protocol in ("TCP", "UDP")
    ]
    return _echo((*tcp, *both))


def short_name(image: str) -> str:
    """`registry.k8s.io/e2e-test-images/agnhost:2.40@sha256:..` -> `agnhost`."""
    return image.split("@")[0].rsplit("/", 1)[-1].split(":")[0].lower()


def image_id(image: str) -> str:
    """A stable imageID: the digest the manifest names, else one made from the name."""
    name, _, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest or 'sha256:' + hashlib.sha256(image.encode()).hexdigest()}"


def full_name(image: str) -> str:
    """What runtimes report: with registry and tag, as containerd normalises names."""
    name, at, digest = image.partition("@")
    head, _, rest = name.partition("/")
    if not rest:
        name = f"docker.io/library/{name}"
    elif "." not in head and ":" not in head and head != "localhost":
        name = f"docker.io/{name}"
    if ":" not in name.rsplit("/", 1)[-1] and not at:
        name += ":latest"
    return f"{name}{at}{digest}"


def _echo(ports: Sequence[PortMapping]) -> tuple[Listener, ...]:
    wanted = (Listener(p.protocol, p.container_port) for p in ports if p.protocol in ("TCP", "UDP"))
    return tuple(dict.fromkeys(wanted))


def _agnhost(words: list[str], ports: Sequence[PortMapping]) -> tuple[Listener, ...]:
    """The image's entry point is `/agnhost`, its default argument `pause`; manifests may name both, or neither."""
    words = [word for word in words if word.rsplit("/", 1)[-1] != "agnhost"]
    program = words[0] if words else "pause"
    if program == "netexec":
        flags = _flags(words[1:])
        http, udp = int(flags.get("--http-port", 8080)), int(flags.get("--udp-port", 8081))
        opened = [Listener("TCP", http, "netexec")]
        return (*opened, Listener("UDP", udp, "netexec")) if udp > 0 else tuple(opened)
    if program == "serve-hostname":
        return _serve_hostname(words)
    return () if program == "pause" else _echo(ports)


def _serve_hostname(words: list[str]) -> tuple[Listener, ...]:
    flags = _flags(words[1:]) if words and not words[0].startswith("-") else _flags(words)
    port = int(flags.get("--port", 9376))
    tcp, udp, http = (flags.get(name, "") == "true" for name in ("--tcp", "--udp", "--http"))
    opened: list[Listener] = []
    if tcp:
        opened.append(Listener("TCP", port, "serve-hostname-tcp"))
    elif http or "--http" not in flags:  # http is the default, and off only where it is turned off
        opened.append(Listener("TCP", port, "serve-hostname"))
    if udp:
        opened.append(Listener("UDP", port, "serve-hostname"))
    return tuple(opened)


def _flags(words: Sequence[str]) -> dict[str, str]:
    """`--a=b`, `--a b`, `-a=b` and lone `--a` (true)."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        name = "--" + name.lstrip("-")
        if equals:
            found[name] = value
        elif name not in _NO_VALUE and rest and not rest[0].startswith("--"):
            found[name] = rest.pop(0)
        else:
            found[name] = "true"
    return found
