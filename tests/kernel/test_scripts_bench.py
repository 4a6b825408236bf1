"""`scripts/bench proxy`: a peer is measured like ours, and whoever ends it finds nothing left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netemu.kernel import netns

ROOT = Path(__file__).parents[2]
BENCH = (sys.executable, "scripts/bench.py", "proxy", "--modes", "nftables", "--services", "20", "--writes", "0")


def test_a_peer_is_measured_in_the_same_run(tmp_path: Path) -> None:
    peer = tmp_path / "kube-proxy"
    peer.write_text(f'#!/bin/sh\n{sys.executable} -m netemu proxy "$@"\n')  # a shell in between: no exec
    peer.chmod(0o755)

    done = subprocess.run((*BENCH, "--peer", str(peer), "--json"), cwd=ROOT, capture_output=True, check=True)

    rows = json.loads(done.stdout)
    assert [row["measure"].partition(": ")[2].split(",")[0] for row in rows] == [
        "first sync",
        "one endpoint changes",
        "memory",
    ]
    assert all(isinstance(row[whose], float) for row in rows for whose in ("median", "peer"))


def test_a_peer_that_never_syncs_has_no_figures(tmp_path: Path) -> None:
    peer = tmp_path / "kube-proxy"
    peer.write_text("#!/bin/sh\nsleep 60\n")
    peer.chmod(0o755)

    done = subprocess.run(
        (*BENCH, "--peer", str(peer), "--within", "5", "--json"), cwd=ROOT, capture_output=True, check=True
    )

    assert {row["peer"] for row in json.loads(done.stdout)} == {"too long"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_it_is_ended(number: signal.Signals) -> None:
    with subprocess.Popen((*BENCH,), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
        mine = f"bench-proxy-{bench.pid}"
        while mine not in netns.names():
            assert bench.poll() is None
            time.sleep(0.05)
        bench.send_signal(number)
        bench.wait(20)

    assert mine not in netns.names()
