"""`scripts/bench api`: every measure has its figures, and the measures with an aim are the ones that are promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCH = (sys.executable, "scripts/bench.py", "api", "--objects", "60", "--runs", "1", "--json")


def test_every_measure_has_figures() -> None:
    done = subprocess.run(BENCH, cwd=ROOT, capture_output=True, timeout=110)

    assert done.returncode == 0, done.stderr.decode()
    rows = {row["measure"]: row for row in json.loads(done.stdout)}
    assert {name: row["aim"] for name, row in rows.items() if row["aim"]} == {
        "sqlite: creates of Services, 10 clients, /s": 1500,
        "sqlite: creates of ConfigMaps, 10 clients, /s": 1500,
        "sqlite: creates of Pods, 10 clients, /s": 1500,
        "sqlite: memory with 60 Services, MiB": 250,
        "sqlite: list of 60 Services, s": 0.3,
        "sqlite: a write to 200 watchers, p99, ms": 30,
    }
    assert all(0 < row["min"] <= row["median"] <= row["max"] for row in rows.values())
