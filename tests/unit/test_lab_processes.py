"""What a lab's processes are called and how they are started, and found again by their command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from netemu.lab import etcd_member
from netemu.lab.config import resolve
from netemu.lab.processes import module_arguments, name_and_lab, process_names
from netemu.lab.topology import read_topology
from netemu.model.errors import UserError


def test_a_lab_on_sqlite_has_one_control_plane() -> None:
    assert process_names(0) == ("supervisor", "control-plane", "node-agent")


def test_a_lab_on_etcd_has_two_processes_for_each_member() -> None:
    members = ("etcd-1", "etcd-2", "etcd-3", "control-plane-1", "control-plane-2", "control-plane-3")

    assert process_names(3) == ("supervisor", *members, "node-agent")


@pytest.mark.parametrize("name", [*process_names(0), *process_names(3)])
def test_a_process_is_known_by_its_command_line(name: str) -> None:
    argv = ["/usr/bin/python3", "-m", *module_arguments(name, "lab"), *(["7", "9"] if name == "node-agent" else []), ""]

    assert name_and_lab(argv) == (name, "lab")


@pytest.mark.parametrize(
    "argv", [[], ["vi"], ["python3", "-m", "netemu.lab.none", "lab"], ["python3", "-m", "http", "x"]]
)
def test_other_command_lines_are_none_of_ours(argv: list[str]) -> None:
    assert name_and_lab(argv) is None


def test_a_member_of_etcd_knows_the_others_and_speaks_tls_only(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(
        "apiVersion: netemu.dev/v1alpha1\nkind: Topology\nmetadata: {name: lab}\n"
        "spec: {ipFamily: ipv6, controlPlane: {replicas: 3, store: etcd}}\n"
    )
    flags = etcd_member.arguments(resolve(read_topology(file).topology), 2)

    values = dict(zip(flags[1::2], flags[2::2], strict=False))
    assert values["--name"] == "control-plane-2"
    assert values["--advertise-client-urls"] == "https://[fc00:f853:ccd:e793::3]:2379"
    assert values["--initial-cluster"].split(",")[2] == "control-plane-3=https://[fc00:f853:ccd:e793::4]:2380"
    assert not [flag for flag in flags if "http://" in flag]
    assert {"--client-cert-auth", "--peer-client-cert-auth"} <= set(flags)


def test_without_etcd_a_lab_on_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(etcd_member, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(etcd_member, "_UNPACKED", tmp_path / "etcd")

    with pytest.raises(UserError, match=r"needs etcd 3\.4 or newer: it is not on the PATH; on Debian, `apt-get"):
        etcd_member.ensure_etcd()
