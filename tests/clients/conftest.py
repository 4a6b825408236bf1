"""One API server per test, and the kubectl that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clients.apiserver import Kubectl, cluster, find_kubectl


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    """kubectl as the administrator of an empty cluster."""
    program = find_kubectl()
    async with cluster(tmp_path, program) as ready:
        yield ready
