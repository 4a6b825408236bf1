"""Bad input and hostile circumstances: one line, exit code 1, nothing created."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netemu.lab.config import load_config
from netemu.model.resources import EVENTS, PODS
from tests.cluster.labs import ROOT, api, eventually, leftovers, netemu, netemu_json, run, start

_QUICKSTART = str(ROOT / "topologies/quickstart.yaml")
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: lonely}
spec:
  nodeSelector: {disk: ssd}
  containers: [{name: c, image: registry.k8s.io/pause}]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a: [", "not valid YAML", id="malformed YAML"),
        pytest.param(
            "apiVersion: v1\nkind: Gizmo\nmetadata: {name: x}\n", "no kind 'Gizmo' in 'v1'", id="unknown kind"
        ),
        pytest.param(_POD.replace("nodeSelector", "nodeSelect"), "unknown field", id="unknown field"),
    ],
)
def test_a_bad_file_is_refused_and_nothing_created(tmp_path: Path, lab_name: str, text: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)

    refused = run("up", str(file), "--name", lab_name)

    assert refused.returncode == 1
    assert f"{file}:" in refused.stderr
    assert said in refused.stderr
    assert leftovers(lab_name) == "nothing"


def test_a_lab_that_does_not_come_up_says_why_and_goes(tmp_path: Path, lab_name: str) -> None:
    file = tmp_path / "lonely.yaml"
    file.write_text(_POD)

    refused = run("up", str(file), "--name", lab_name, "--timeout", "5")

    assert refused.returncode == 1
    assert "pod default/lonely: Pending: 0/3 nodes are available" in refused.stderr
    assert leftovers(lab_name) == "nothing"


def test_keep_leaves_it_to_look_into(tmp_path: Path, lab_name: str) -> None:
    file = tmp_path / "lonely.yaml"
    file.write_text(_POD)

    run("up", str(file), "--name", lab_name, "--timeout", "5", "--keep")

    pod = api(lab_name).get(PODS, "lonely", "default")
    events, _ = api(lab_name).list(
        EVENTS, "default", fieldSelector="involvedObject.name=lonely,reason=FailedScheduling"
    )
    assert pod["status"]["phase"] == "Pending"
    assert "didn't match Pod's node affinity/selector" in events[0]["message"]


def test_two_labs_at_once_do_not_meet(lab_name: str) -> None:
    other = f"{lab_name}-2"
    try:
        netemu("up", _QUICKSTART, "--name", lab_name)
        netemu("up", _QUICKSTART, "--name", other)

        for lab in (lab_name, other):
            result = netemu_json("probe", "--lab", lab, "-n", "shop", "client", "web:80", "--count", "30")
            pods = {pod["metadata"]["name"] for pod in api(lab).list(PODS, "shop")[0]}
            assert result["answered"] == 30
            assert result["servers"].keys() <= pods
        ambiguous = run("status")
        assert ambiguous.returncode == 1
        assert "say which with --lab" in ambiguous.stderr
    finally:
        run("down", other)


def test_labs_may_start_at_the_same_moment(lab_name: str) -> None:
    names = [lab_name, f"{lab_name}-2", f"{lab_name}-3"]
    try:
        commands = [start("up", _QUICKSTART, "--name", name) for name in names]

        assert [command.wait(90) for command in commands] == [0, 0, 0]
        assert len({load_config(name).api_port for name in names}) == 3
    finally:
        for name in names[1:]:
            run("down", name)


def test_of_two_ups_of_one_lab_one_is_refused_and_the_other_works(lab_name: str) -> None:
    commands = [start("up", _QUICKSTART, "--name", lab_name) for _ in range(2)]

    assert sorted(command.wait(90) for command in commands) == [0, 1]
    assert not netemu_json("status", lab_name)["missing"]


def test_a_lab_that_runs_is_not_started_again(lab_name: str) -> None:
    netemu("up", _QUICKSTART, "--name", lab_name)

    refused = run("up", _QUICKSTART, "--name", lab_name)

    assert refused.returncode == 1
    assert f"lab {lab_name} is already running" in refused.stderr
    assert eventually(lambda: not netemu_json("status", lab_name)["missing"], "the first one is untouched")


def test_without_root_it_says_so(lab_name: str) -> None:
    # In a user namespace without a mapping everybody is nobody.
    command = ["unshare", "--user", sys.executable, "-m", "netemu", "up", _QUICKSTART, "--name", lab_name]
    refused = subprocess.run(command, capture_output=True, text=True)

    assert refused.returncode == 1
    assert "netemu up needs root to work with network namespaces: sudo netemu up" in refused.stderr
    assert leftovers(lab_name) == "nothing"


@pytest.mark.parametrize(
    "args",
    [
        ("up",), ("frobnicate",), ("probe", "x"), ("list", "-o", "xml"), ("up", "a", "b"),
        ("capture", "x", "--count", "0"), ("proxy-mode", "nftables"),
    ],
)  # fmt: skip
def test_wrong_usage_exits_with_2(args: tuple[str, ...]) -> None:
    assert run(*args).returncode == 2


@pytest.mark.parametrize("command", ["status", "kubeconfig", "exec x -- true", "probe x y:80", "dig x y", "logs x"])
def test_without_a_lab_commands_say_how_to_start_one(command: str) -> None:
    refused = run(*command.split())

    assert refused.returncode == 1
    assert "no lab is running; `netemu up FILE` starts one" in refused.stderr


def test_a_missing_tool_is_named(lab_name: str) -> None:
    # Debian has iptables in /usr/sbin.
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "netemu", "up", _QUICKSTART, "--name", lab_name]
    refused = subprocess.run(command, capture_output=True, text=True, env=environment)

    assert refused.returncode == 1
    assert "iptables-restore is not installed" in refused.stderr
    assert leftovers(lab_name) == "nothing"


def test_a_missing_kernel_feature_is_named(tmp_path: Path, lab_name: str) -> None:
    doctor = {finding["name"]: finding["present"] for finding in netemu_json("doctor")}
    file = tmp_path / "slow.yaml"
    file.write_text(
        "apiVersion: netemu.dev/v1alpha1\nkind: Topology\nmetadata: {name: slow}\nspec: {links: {delay: 5ms}}\n"
    )

    done = run("up", str(file), "--name", lab_name)

    assert (done.returncode == 0) == doctor["netem"]
    assert doctor["netem"] or "this kernel has no sch_netem" in done.stderr
