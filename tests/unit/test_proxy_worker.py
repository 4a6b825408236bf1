"""Work in threads that is waited for even by who was told to stop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from netemu.proxy.worker import in_thread, opened


async def test_a_cancelled_call_ends_after_its_thread() -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        go.wait(10)
        done.append(True)

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    early = list(done)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (early, done) == ([], [True])


async def test_what_is_opened_for_a_call_that_is_cancelled_meanwhile_is_closed() -> None:
    begun, go, closed = threading.Event(), threading.Event(), []

    class Socket:
        def close(self) -> None:
            closed.append(True)

    def reach() -> Socket:
        begun.set()
        go.wait(10)
        return Socket()

    async def use() -> None:
        async with opened(reach):
            raise AssertionError("a cancelled call went on")

    task = asyncio.create_task(use())
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert closed == [True]


async def test_an_error_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
