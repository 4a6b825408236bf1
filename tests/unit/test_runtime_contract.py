"""What every container runtime promises; the fake and the emulated one are held to the same words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netemu.runtime.cri import ContainerConfig, ContainerEvent, ContainerState, Runtime, RuntimeFailure, SandboxConfig
from netemu.runtime.emulated import EmulatedRuntime
from netemu.testing.runtime import FakeRuntime

WEB = ContainerConfig(name="web", image="pause")


@pytest.fixture(params=["fake", "emulated"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime]:
    one: Runtime = FakeRuntime() if request.param == "fake" else EmulatedRuntime("n1", tmp_path)
    await one.start()
    await one.run_pod_sandbox(
        SandboxConfig(
            pod_uid="u",
            pod_name="p",
            pod_namespace="shop",
            node_name="n1",
            directory=str(tmp_path / "u"),
            netns="",
            hostname="p",
        )
    )
    yield one
    await one.remove_pod_sandbox("u")
    await one.close()


async def state_of(runtime: Runtime, container: str) -> ContainerState | None:
    status = await runtime.container_status(container)
    return status.state if status else None


async def test_a_container_is_created_runs_exits_and_is_forgotten(runtime: Runtime) -> None:
    container = await runtime.create_container("u", WEB)
    states = [await state_of(runtime, container)]
    await runtime.start_container(container)
    states.append(await state_of(runtime, container))
    await runtime.stop_container(container, 1)
    states.append(await state_of(runtime, container))
    await runtime.remove_container(container)
    states.append(await state_of(runtime, container))

    assert states == [ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED, None]


async def test_an_exit_is_told_once(runtime: Runtime) -> None:
    told: list[ContainerEvent] = []
    runtime.subscribe(told.append)
    container = await runtime.create_container("u", WEB)
    await runtime.start_container(container)

    await runtime.stop_container(container, 1)
    await runtime.stop_container(container, 1)
    await runtime.stop_pod_sandbox("u")

    assert told == [ContainerEvent("u", container)]


async def test_stopping_and_removing_what_is_not_there_succeeds(runtime: Runtime) -> None:
    await runtime.stop_container("none", 1)
    await runtime.remove_container("none")
    await runtime.stop_pod_sandbox("none")
    await runtime.remove_pod_sandbox("none")

    assert [one.id for one in await runtime.list_pod_sandbox()] == ["u"]


async def test_an_init_container_has_ended_when_it_has_started(runtime: Runtime) -> None:
    container = await runtime.create_container("u", ContainerConfig(name="init", image="x", init=True))

    await runtime.start_container(container)

    assert await state_of(runtime, container) is ContainerState.EXITED


async def test_a_stopped_sandbox_is_not_ready_and_runs_nothing(runtime: Runtime) -> None:
    container = await runtime.create_container("u", WEB)
    await runtime.start_container(container)

    await runtime.stop_pod_sandbox("u")

    status = await runtime.pod_sandbox_status("u")
    assert status is not None
    assert (status.ready, await state_of(runtime, container)) == (False, ContainerState.EXITED)


async def test_attempts_of_a_container_are_told_apart(runtime: Runtime) -> None:
    first = await runtime.create_container("u", WEB)
    second = await runtime.create_container("u", ContainerConfig(name="web", image="pause", attempt=1))

    assert [(one.id, one.attempt) for one in await runtime.list_containers("u")] == [(first, 0), (second, 1)]


async def test_no_container_without_a_sandbox(runtime: Runtime) -> None:
    with pytest.raises(RuntimeFailure):
        await runtime.create_container("none", WEB)


async def test_what_was_never_created_cannot_be_started(runtime: Runtime) -> None:
    with pytest.raises(RuntimeFailure):
        await runtime.start_container("none")
