"""Shared by all tests: the leak check, and who needs root.

Every test must leave the machine as it found it. What is compared: named network namespaces, links of the host
namespace, child processes, asyncio tasks. A leftover fails the test that made it, by name.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

_NETNS = Path("/run/netns")


def pytest_configure() -> None:
    """A thread that was once told that it has no loop gets none by asking: looptime asks for tests that need none, and
    nobody would close it."""
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coroutine tests are watched for tasks (a loop for each of the others would cost more than most of them); tests of
    every room but unit need root: say so once instead of failing each."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "_no_tasks_left")
    if os.geteuid() == 0:
        return
    needs_root = pytest.mark.skip(reason="needs root: run `sudo scripts/test`")
    for item in items:
        if any(room in item.path.parts for room in ("kernel", "cluster", "clients", "vm")):
            item.add_marker(needs_root)


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def _namespaces() -> set[str]:
    return {entry.name for entry in _NETNS.iterdir()} if _NETNS.exists() else set()


def _links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def _machine(request: pytest.FixtureRequest) -> dict[str, set[str]]:
    """What a test may have changed; unit tests have no way to make namespaces or links."""
    children = {"child processes": _children()}
    if "unit" in request.path.parts:
        return children
    return {"namespaces": _namespaces(), "host links": _links(), **children}


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves namespaces, host links or child processes behind."""
    before = _machine(request)

    yield

    after = _machine(request)
    left = {what: sorted(after[what] - before[what]) for what in after if after[what] - before[what]}
    assert not left, f"left behind: {left}"


@pytest.fixture
async def _no_tasks_left() -> AsyncIterator[None]:
    """Fail a coroutine test that leaves tasks running."""
    before = asyncio.all_tasks()

    yield

    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()]
    assert not left, f"tasks left behind: {left}"
