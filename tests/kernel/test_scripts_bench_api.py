"""`scripts/bench api`: every measure has its figures, on either store, and nothing is left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_every_measure_has_figures(store: str) -> None:
    command = (sys.executable, "scripts/bench.py", "api", "--store", store, "--objects", "60", "--runs", "2", "--json")

    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=50)

    assert done.returncode == 0, done.stderr.decode()
    rows = {row["measure"]: row for row in json.loads(done.stdout)}
    aimed = {name: row["aim"] for name, row in rows.items() if row["aim"]}
    assert aimed == {
        f"{store}: creates of Services, 10 clients, /s": 1500 if store == "sqlite" else 500,
        f"{store}: creates of ConfigMaps, 10 clients, /s": 1500 if store == "sqlite" else 500,
        f"{store}: creates of Pods, 10 clients, /s": 1500 if store == "sqlite" else 500,
        f"{store}: memory with 60 Services, MiB": 250,
        f"{store}: list of 60 Services, s": 0.3,
        f"{store}: a write to 200 watchers, p99, ms": 30,
    }
    assert all(0 < row["min"] <= row["median"] <= row["max"] for row in rows.values())
