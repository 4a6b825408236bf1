"""What kubectl follows: get -w, wait, and the end of the server."""

from __future__ import annotations

import asyncio

from netemu.model.resources import PODS
from tests.clients.apiserver import Kubectl


async def _line(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 10)).decode().split()


async def _stop(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    await process.communicate()


async def test_get_watch_prints_a_row_per_change(kubectl: Kubectl) -> None:
    await kubectl("run", "one", "--image=nginx")
    watching = await kubectl.start("get", "pods", "--watch")
    header, first = await _line(watching), await _line(watching)
    await kubectl.client.patch(PODS, "one", {"status": {"phase": "Running"}}, "default", subresource="status")
    changed = await _line(watching)
    await _stop(watching)

    assert header == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert (first[:3], changed[:3]) == (["one", "0/1", "Pending"], ["one", "0/1", "Running"])


async def test_get_watch_of_one_object_ignores_others(kubectl: Kubectl) -> None:
    await kubectl("run", "one", "--image=nginx")
    watching = await kubectl.start("get", "pod", "one", "--watch", "-o", "name")
    first = await _line(watching)
    await kubectl("run", "two", "--image=nginx")
    await kubectl("label", "pod", "one", "a=b")
    second = await _line(watching)
    await _stop(watching)

    assert (first, second) == (["pod/one"], ["pod/one"])


async def test_wait_returns_when_the_condition_holds(kubectl: Kubectl) -> None:
    await kubectl("run", "one", "--image=nginx")
    waiting = await kubectl.start("wait", "--for=condition=Ready", "pod/one", "--timeout=20s")
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await kubectl.client.patch(PODS, "one", {"status": ready}, "default", subresource="status")
    out, _ = await waiting.communicate()

    assert (waiting.returncode, out) == (0, b"pod/one condition met\n")


async def test_wait_gives_up_at_its_timeout(kubectl: Kubectl) -> None:
    await kubectl("run", "one", "--image=nginx")

    answer = await kubectl.run("wait", "--for=condition=Ready", "pod/one", "--timeout=1s")

    assert "timed out waiting for the condition on pods/one" in answer.err
