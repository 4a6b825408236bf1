"""Sysctls that kube-proxy asks for, and what becomes of those it may not set."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import pytest

from netemu.kernel import sysctl
from netemu.model.errors import KernelError
from netemu.proxy import node
from netemu.proxy.config import parse
from netemu.proxy.iptables_mode import MODE
from netemu.proxy.node import set_sysctls
from tests.unit.test_proxy_config import HEAD

LIMIT, TIMEOUT = "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_tcp_timeout_established"
LOCAL = "net/ipv4/conf/all/route_localnet"


class Sysctls:
    """Sysctls of what looks like the machine's own namespace, of which `refused` cannot be written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, *refused: str) -> None:
        self.values: dict[str, str] = {}
        self._code, self._refused = code, refused
        monkeypatch.setattr(node, "_is_host_namespace", lambda: True)
        monkeypatch.setattr(sysctl, "read", lambda name, _netns: self.values.get(name, "0"))
        monkeypatch.setattr(sysctl, "write", self._write)

    def _write(self, values: Mapping[str, str | int], netns: str, *, optional: bool = False) -> None:
        for name, value in values.items():
            if name in self._refused:
                raise KernelError.of(f"write sysctl {name}={value}", netns, self._code)
            self.values[name] = str(value)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_container_keeps_its_limits_and_gets_its_rules(
    code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = Sysctls(monkeypatch, code, LIMIT)

    set_sysctls(parse({**HEAD, "conntrack": {"maxPerCore": 1, "min": 131072}}), "", {LOCAL: 1})

    assert (held.values[TIMEOUT], held.values[LOCAL], LIMIT in held.values) == ("86400", "1", False)
    (told,) = caplog.messages
    assert told.startswith(f"proxy: write sysctl {LIMIT}=131072: ")


def test_nothing_is_told_of_a_limit_that_is_right(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Sysctls(monkeypatch, errno.EACCES, LIMIT).values[LIMIT] = "131072"

    set_sysctls(parse({**HEAD, "conntrack": {"maxPerCore": 1, "min": 131072}}), "", {})

    assert caplog.messages == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        pytest.param(errno.EINVAL, LIMIT, id="another reason"),
        pytest.param(errno.EACCES, LOCAL, id="one that the mode needs"),
    ],
)
def test_other_refusals_end_it(code: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Sysctls(monkeypatch, code, name)

    with pytest.raises(KernelError, match=f"write sysctl {name}"):
        set_sysctls(parse(HEAD), "", {LOCAL: 1})


@pytest.mark.parametrize(
    ("addresses", "local"),
    [
        pytest.param([], True, id="everywhere"),
        pytest.param(["192.168.0.0/24"], False, id="elsewhere"),
        pytest.param(["192.168.0.0/24", "127.0.0.0/8"], True, id="named"),
        pytest.param(["127.0.0.1/32"], True, id="one address"),
        pytest.param(["0.0.0.0/0"], True, id="in the network of all"),
        pytest.param(["96.0.0.0/3"], True, id="in a larger network"),
        pytest.param(["fd00::/64"], True, id="of the other family, so everywhere"),
        pytest.param(["fd00::/64", "192.168.0.0/24"], False, id="of both families"),
        pytest.param(["primary"], False, id="primary addresses"),
    ],
)
def test_localhost_node_ports_take_route_localnet(addresses: list[str], local: bool) -> None:
    said: dict[str, Any] = {**HEAD, "nodePortAddresses": addresses}

    assert bool(MODE.sysctls(parse(said))) is local
    assert not MODE.sysctls(parse({**said, "iptables": {"localhostNodePorts": False}}))
