"""Work that blocks, in a thread, with an end that a caller can rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Closable(Protocol):
    """What holds sockets."""

    def close(self) -> None:
        """Give them back."""


C = TypeVar("C", bound=Closable)


async def in_thread(work: Callable[[*Ts], T], *args: *Ts) -> T:
    """`work(*args)` in a worker thread.

    A thread cannot be stopped. So a cancelled call returns when the thread is through: whoever comes next finds the
    kernel as it is going to stay, and the sockets that the thread used may be closed.
    """
    return await to_its_end(asyncio.to_thread(work, *args))


async def to_its_end(work: Awaitable[T]) -> T:
    """The result of `work`; a cancelled call waits for its end before it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody asks for it any more
        raise


@asynccontextmanager
async def opened(reach: Callable[[], C]) -> AsyncIterator[C]:
    """What `reach` opens, in a worker thread, for as long as it is needed."""
    made: list[C] = []
    try:
        await in_thread(lambda: made.append(reach()))
        yield made[0]
    finally:
        for each in made:
            each.close()
