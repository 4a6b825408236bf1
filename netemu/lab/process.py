"""What the processes of a lab do alike: one event loop, logging to standard error, an orderly end on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable

from netemu.model.collector import look_at_old_objects_seldom
from netemu.model.errors import NetemuError


def run(main: Callable[[str], Awaitable[None]]) -> None:
    """`python -m netemu.lab.<process> LAB`: run `main(lab)` until it ends or SIGTERM or SIGINT cancels it."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s %(message)s"
    )
    look_at_old_objects_seldom()
    try:
        asyncio.run(_until_told(main, sys.argv[1]))
    except asyncio.CancelledError:
        return
    except Exception as error:
        traceback.print_exc()
        # Last, in one line, what `netemu up` repeats when a process ends before its lab is ready.
        sys.exit("; ".join(dict.fromkeys(map(_said, _leaves(error)))))


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, NetemuError) else f"{type(error).__name__}: {error}"


def _leaves(error: BaseException) -> list[BaseException]:
    """What failed, out of the groups that task groups wrap it in."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


async def _until_told(main: Callable[[str], Awaitable[None]], lab: str) -> None:
    task = asyncio.ensure_future(main(lab))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await task


async def until(there: Callable[[], bool], *, within: float = 30.0) -> None:
    """Return once something is there that another process of the lab makes. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not there():  # noqa: ASYNC110 - nobody in this process knows
            await asyncio.sleep(0.01)
