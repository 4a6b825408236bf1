"""Components run alone, outside of any lab, against the API server of one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netemu.model.resources import SERVICES
from netemu.observe.resolve.dig import lookup
from tests.cluster.labs import api, eventually, netemu, run

_COREFILE = """\
cluster.local:5391 {
    bind 127.0.0.1
    errors
    kubernetes cluster.local
}
"""


@pytest.fixture
def dns(quickstart: str, tmp_path: Path) -> Iterator[Path]:
    """`netemu dns` on the host's loopback; the resolv.conf that leads to it."""
    corefile = tmp_path / "Corefile"
    corefile.write_text(_COREFILE)
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\nsearch shop.svc.cluster.local\noptions ndots:5 timeout:1\n")
    kubeconfig = netemu("kubeconfig", quickstart).strip()
    command = [sys.executable, "-m", "netemu", "dns", "--conf", str(corefile), "--kubeconfig", kubeconfig]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        yield resolv_conf
        server.terminate()


def test_dns_alone_answers_from_the_api_server_it_is_given(quickstart: str, dns: Path) -> None:
    def addresses() -> tuple[str, ...]:
        found = asyncio.run(lookup("web", types=("A",), resolv_conf=dns, hosts=None, port=5391))
        return found.result.addresses

    service = api(quickstart).get(SERVICES, "web", "shop")
    assert eventually(addresses, "an answer for web") == (service["spec"]["clusterIP"],)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        pytest.param(("dns", "--conf", "/nonexistent/Corefile"), "/nonexistent/Corefile", id="no Corefile"),
        pytest.param(("proxy", "--config", "/nonexistent/config"), "/nonexistent/config", id="no proxy config"),
    ],
)
def test_a_missing_file_is_named_in_one_line(args: tuple[str, ...], text: str) -> None:
    refused = run(*args)

    assert refused.returncode == 1
    assert text in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_mistake_in_the_corefile_is_named_with_its_line(tmp_path: Path) -> None:
    corefile = tmp_path / "Corefile"
    corefile.write_text(".:5391 {\n    errors\n    cahce 30\n}\n")

    refused = run("dns", "--conf", str(corefile))

    assert refused.returncode == 1
    assert f"{corefile}:3" in refused.stderr
    assert "cache" in refused.stderr
