"""One API server per test, or one whole lab per module, and the kubectl that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.clients.apiserver import Kubectl, cluster, find_kubectl
from tests.clients.labs import LabKubectl
from tests.cluster.labs import netemu, run

TOPOLOGY = """
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: t-kubectl}
spec:
  clients: [{name: laptop}]
"""


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    """kubectl as the administrator of an empty cluster."""
    program = find_kubectl()
    async with cluster(tmp_path, program) as ready:
        yield ready


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabKubectl]:
    """kubectl as the administrator of a running lab: the default nodes, and somebody outside."""
    program, folder = find_kubectl(), tmp_path_factory.mktemp("lab")
    (folder / "lab.yaml").write_text(TOPOLOGY)
    netemu("up", str(folder / "lab.yaml"))
    yield LabKubectl("t-kubectl", program, folder / "cache")
    run("down", "t-kubectl")
