"""Which containers of the process runtime wait for somebody, and what becomes of them without processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from netemu.kernel.inside import Stdio
from netemu.kernel.pidfd import Process
from netemu.runtime.cri import ContainerConfig, ContainerState, RuntimeFailure, SandboxConfig
from netemu.runtime.emulated import EmulatedRuntime
from netemu.runtime.process import ProcessRuntime, waits
from netemu.runtime.shells import Shells

SHELL = ContainerConfig(name="debugger", image="busybox", stdin=True, stdin_once=True)


async def runtime_with_a_sandbox(directory: Path) -> ProcessRuntime:
    runtime = ProcessRuntime("n1", directory)
    await runtime.start()
    await runtime.run_pod_sandbox(sandbox(directory))
    return runtime


def sandbox(directory: Path) -> SandboxConfig:
    return SandboxConfig(
        pod_uid="u", pod_name="p", pod_namespace="shop", node_name="n1", hostname="p",
        directory=str(directory / "u"), netns="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(SHELL, True, id="a shell for one session"),
        pytest.param(ContainerConfig("c", "x", stdin=True), True, id="a shell, for want of a command"),
        pytest.param(ContainerConfig("c", "x", command=("a",), stdin=True, stdin_once=True), True, id="one session"),
        pytest.param(ContainerConfig("c", "x", command=("a",), stdin=True), False, id="a command begins at once"),
        pytest.param(ContainerConfig("c", "x", args=("a",), stdin=True), False, id="so do arguments"),
        pytest.param(ContainerConfig("c", "x", command=("a",), stdin_once=True), False, id="no input, no session"),
    ],
)
def test_who_waits_for_somebody_to_attach(config: ContainerConfig, expected: bool) -> None:
    assert waits(config) is expected


async def test_a_container_without_command_and_input_is_refused(tmp_path: Path) -> None:
    runtime = await runtime_with_a_sandbox(tmp_path)

    with pytest.raises(RuntimeFailure, match="no command specified"):
        await runtime.create_container("u", ContainerConfig("c", "x"))


@pytest.mark.parametrize("kind", [ProcessRuntime, EmulatedRuntime])
async def test_who_attaches_too_late_is_refused_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[ProcessRuntime | EmulatedRuntime]
) -> None:
    started = asyncio.Event()

    async def exec_(self: Shells, container_id: str, command: Sequence[str], stdio: Stdio) -> Process:
        started.set()
        return Process(os.getpid(), 0)

    monkeypatch.setattr(Shells, "exec", exec_)
    runtime = kind("n1", tmp_path)
    await runtime.start()
    await runtime.run_pod_sandbox(sandbox(tmp_path))
    container = await runtime.create_container("u", SHELL)
    await runtime.start_container(container)

    both = await asyncio.gather(*(runtime.attach(container, Stdio()) for _ in range(2)), return_exceptions=True)

    status = await runtime.container_status(container)
    assert started.is_set()
    assert isinstance(both[0], Process)
    assert isinstance(both[1], RuntimeFailure)
    assert "has somebody attached" in str(both[1])
    assert status is not None
    assert status.state is ContainerState.RUNNING
    await runtime.attached_exited(container, 0)
    await runtime.close()


async def test_a_debugger_without_command_and_input_is_a_shell(tmp_path: Path) -> None:
    runtime = await runtime_with_a_sandbox(tmp_path)

    assert await runtime.create_container("u", ContainerConfig("debugger", "busybox", ephemeral=True))


async def test_one_that_waits_is_found_by_the_next_runtime_and_stopped(tmp_path: Path) -> None:
    first = await runtime_with_a_sandbox(tmp_path)
    container = await first.create_container("u", SHELL)
    await first.start_container(container)
    await first.close()
    second = ProcessRuntime("n1", tmp_path)
    await second.start()
    waited = second.interactive(container)

    await second.stop_container(container, 30)

    status = await second.container_status(container)
    assert status is not None
    assert (waited, second.interactive(container)) == (True, False)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)
