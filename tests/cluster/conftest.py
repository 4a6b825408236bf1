"""One lab for all tests of a module that only look; tests that break things start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.labs import ROOT, host_network, netemu, run


@pytest.fixture(scope="module")
def host_before() -> dict[str, str]:
    """The host's own network before the module's lab came up."""
    return host_network()


@pytest.fixture(scope="module")
def quickstart(host_before: dict[str, str]) -> Iterator[str]:
    """topologies/quickstart.yaml, up; its name."""
    lab = "t-quickstart"
    netemu("up", str(ROOT / "topologies/quickstart.yaml"), "--name", lab)
    yield lab
    run("down", lab)


@pytest.fixture
def lab_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a lab that the test starts itself; whatever is left of it is removed afterwards."""
    name = "t-own"
    yield name
    run("down", name)
