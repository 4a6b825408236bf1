"""One container of a Pod over its attempts: what runs now, what ran before, when it may run again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from netemu.kubelet.backoff import BackOff
from netemu.kubelet.probes import Outcome, Prober
from netemu.kubelet.status import ContainerView
from netemu.model.pods import Container
from netemu.runtime.cri import ContainerState, ContainerStatus


@dataclass(slots=True)
class Slot:
    """The place of one container. `current` and `previous` are the last two attempts as the runtime tells them."""

    spec: Container
    init: bool
    back_off: BackOff
    current: ContainerStatus | None = None
    previous: ContainerStatus | None = None
    waiting: tuple[str, str] = ("ContainerCreating", "")
    retry_at: float = 0.0
    """Not to be tried again before: loop time."""
    ended_at: float = 0.0
    """When the end of `current` was noticed."""
    backing_off: bool = False
    prober: Prober | None = None
    stopping: asyncio.Task[None] | None = None
    hook: asyncio.Task[Outcome] | None = None
    """Its preStop, while that runs."""
    pull: BackOff = field(default_factory=BackOff)

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.current is not None and self.current.state is ContainerState.RUNNING

    @property
    def next_attempt(self) -> int:
        """The number of the attempt that would come now."""
        if self.current is None:
            return 0
        return self.current.attempt + (self.current.state is not ContainerState.CREATED)

    def adopt(self, found: list[ContainerStatus]) -> None:
        """Take what the runtime knows of this container, oldest first."""
        mine = [status for status in found if status.name == self.spec.name]
        mine.sort(key=lambda status: status.attempt)
        if mine:
            before, self.current = self.current, mine[-1]
            self.previous = mine[-2] if len(mine) > 1 else None
            if self.current.state is ContainerState.EXITED and (before is None or before.state != self.current.state):
                self.ended_at = asyncio.get_running_loop().time()

    def old_attempts(self, found: list[ContainerStatus]) -> list[str]:
        """The ids of attempts that nobody asks about any more."""
        keep = {status.id for status in (self.current, self.previous) if status is not None}
        return [status.id for status in found if status.name == self.spec.name and status.id not in keep]

    def view(self) -> ContainerView:
        """For the status."""
        probing = self.prober
        return ContainerView(
            spec=self.spec,
            current=self.current,
            previous=self.previous,
            restarts=self.current.attempt if self.current else 0,
            waiting=self.waiting,
            backing_off=self.backing_off,
            ready=self.running and probing is not None and probing.ready and self.stopping is None,
            started=self.running and probing is not None and probing.started,
        )

    async def stop_probing(self) -> None:
        """Ask it no more."""
        if self.prober is not None:
            prober, self.prober = self.prober, None
            await prober.stop()


def wanted(init: list[ContainerView], containers: list[ContainerView], policy: str) -> list[tuple[bool, int]]:
    """Which containers should run now and do not, as (init, index), in order. Pure.

    Init containers one after another, sidecars as soon as those before them are done, all others once every init
    container is done (kubernetes/pkg/kubelet/kuberuntime, computePodActions).
    """
    ever_started = any(one.current is not None for one in containers)
    found: list[tuple[bool, int]] = []
    for index, one in enumerate(init):
        if one.sidecar:
            if not one.running:
                found.append((True, index))
            if not (one.running and one.started) and not ever_started:
                return found
            continue
        if one.succeeded or ever_started:
            continue
        if not one.running and (not one.ended or policy != "Never"):
            found.append((True, index))
        return found
    return found + [(False, index) for index, one in enumerate(containers) if _should_run(one, policy)]


def _should_run(one: ContainerView, policy: str) -> bool:
    if one.running:
        return False
    if not one.ended:
        return True
    return policy == "Always" or (policy == "OnFailure" and not one.succeeded)
