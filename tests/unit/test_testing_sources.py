"""What is put in for the kernel's messages behaves as the kernel's sockets do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from netemu.kernel.packet_socket import ETHERNET
from netemu.kernel.packet_socket import Frame as RingFrame
from netemu.kernel.tap import Frame
from netemu.testing.sources import Scripted, ScriptedRing, ScriptedTap
from tests.unit.listener_contract import check_listener


def twice(put: Callable[[], None]) -> Callable[[], None]:
    def happen() -> None:
        put()
        put()

    return happen


def test_contract() -> None:
    with closing(Scripted[str]()) as messages:
        check_listener(messages, lambda: len(messages.read()[0]), twice(lambda: messages.put("said")))
    with closing(ScriptedTap()) as tap:
        check_listener(tap, lambda: len(tap.read()), twice(lambda: tap.put(Frame(1, "eth0", True, b""))))
    with closing(ScriptedRing()) as ring:
        check_listener(ring, lambda: len(ring.read()), twice(lambda: ring.put(RingFrame(1, 2, ETHERNET, True, 0, b""))))
