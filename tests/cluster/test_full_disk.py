"""A full disk under the store: writes are refused, nothing is corrupted, and later it goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cluster.labs import ROOT

# Everything happens in a mount namespace of its own, so that the small disk is nobody else's.
_STORY = f"""
import json, os, subprocess, sys
from pathlib import Path
os.makedirs("/var/lib/netemu", exist_ok=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "disk", "/var/lib/netemu"], check=True)
from tests.cluster.labs import api, create, eventually, netemu, netemu_json
from netemu.model.errors import ServiceUnavailable
from netemu.model.resources import CONFIGMAPS
LAB, told = "t-full", {{}}
def config_map(name):
    create(LAB, {{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": name}}, "data": {{"x": "y" * 20000}}}})
netemu("up", {str(ROOT / "topologies/quickstart.yaml")!r}, "--name", LAB)
try:
    filler = Path("/var/lib/netemu/filler")
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    accepted = []
    try:
        for number in range(100):
            config_map(f"c{{number}}")
            accepted.append(f"c{{number}}")
    except ServiceUnavailable as error:
        told["refused"] = str(error)
    told["reads"] = len(api(LAB).list(CONFIGMAPS, "default")[0]) >= len(accepted)
    told["packets"] = netemu_json("probe", "--lab", LAB, "-n", "shop", "client", "web:80", "--count", "5")["answered"]
    filler.unlink()
    config_map("after")
    stored = {{c["metadata"]["name"] for c in api(LAB).list(CONFIGMAPS, "default")[0]}}
    told["kept"] = set(accepted) | {{"after"}} <= stored
finally:
    netemu("down", LAB)
print(json.dumps(told))
"""


@pytest.mark.timeout(120)
def test_a_full_disk_refuses_writes_and_corrupts_nothing() -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _STORY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "disk" in told.pop("refused")
    assert told == {"reads": True, "packets": 5, "kept": True}
