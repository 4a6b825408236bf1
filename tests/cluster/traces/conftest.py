"""The lab of all traces, anew for each module: what the causes break and mend is not what the stories were told of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.labs import netemu, run
from tests.cluster.traces.trace_table import LAB


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    """lab.yaml, up; its name."""
    try:
        netemu("up", str(Path(__file__).parent / "lab.yaml"), "--name", LAB)
        yield LAB
    finally:
        run("down", LAB)
