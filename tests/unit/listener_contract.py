"""What whoever waits for the kernel's messages relies on, of the kernel's sockets and of what stands for them."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Protocol


class _Readable(Protocol):
    def fileno(self) -> int: ...


def check_listener(listener: _Readable, read: Callable[[], int], happen: Callable[[], None]) -> None:
    """`read` says how many messages there were; `happen` makes some."""
    assert read() == 0  # at once, though there is nothing
    assert not _readable(listener, 0)

    happen()
    assert _readable(listener, 5000)
    assert _readable(listener, 0)  # as long as something waits, not just once
    found = read()
    assert found
    while _readable(listener, 100):
        found += read()
    assert read() == 0

    happen()
    assert _readable(listener, 5000)
    assert read()


def _readable(listener: _Readable, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(milliseconds))
