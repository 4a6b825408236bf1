"""What rules log, by netlink; and with it the trace of x_tables (iptables-legacy).

Theory of operation: a traced packet (see `netemu.kernel.nft_trace`) makes tables of x_tables log each rule that acts on
it, through the logger of the packet's family. A new namespace has no logger; one called nfnetlink_log sends what is
logged to whoever has bound the group, which for traces is 0. Such a line says `TRACE: TABLE:CHAIN:KIND:NUMBER`, KIND
being `rule`, `return` (the end of a chain of a person) or `policy`, and comes with the packet as the chain saw it.

The group is the socket's and goes with it. The logger is a setting of the namespace, so the former one is put back;
after a kill it stays what it was made, which has no effect as long as nobody binds the group.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from msgspec import Struct

from netemu.kernel import sysctl
from netemu.kernel.nfnetlink import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    attribute,
    attributes,
    be32,
    drain,
    listen,
    message,
    refusal,
)  # fmt: skip
from netemu.model.errors import KernelError

HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
_LOGGER: Final = "nfnetlink_log"
_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND: Final = 1
_COPY_PACKET: Final = 2
_COPIED: Final = 256
_ERROR: Final = 2
_MEANINGS: Final = {
    # Without the rights to ask, a namespace could not have been entered.
    errno.EPERM: (errno.EBUSY, "somebody else has it"),
    errno.EINVAL: (errno.EINVAL, "this kernel has no logging over netlink (module nfnetlink_log)"),
}
_HEADER, _MARK, _IN, _OUT, _PAYLOAD, _PREFIX = 1, 2, 4, 5, 9, 10


class Logged(Struct, frozen=True):
    """A packet that a rule logged. `packet` is from the IP header on, its beginning."""

    prefix: str
    hook: str
    mark: int
    in_index: int
    out_index: int
    packet: bytes


class Nflog:
    """What is logged to a group in the namespace `netns`, until it is closed. Calls block shortly.

    Raises KernelNotFound for a namespace that is not there, KernelError where the kernel has no such logger or somebody
    else has the group (EBUSY).
    """

    def __init__(self, netns: str, *, ipv6: bool, group: int = 0) -> None:
        self.netns = netns
        name = f"net.netfilter.nf_log.{int(socket.AF_INET6 if ipv6 else socket.AF_INET)}"
        self._socket = listen(netns)
        self._restore: Mapping[str, str] = {}
        try:
            self._ask(group, attribute(_COMMAND, bytes((_BIND,))))
            self._ask(group, attribute(_MODE, struct.pack(">IBx", _COPIED, _COPY_PACKET)) + be32(_THRESHOLD, 1))
            self._restore = {name: sysctl.read(name, netns)}
            sysctl.write({name: _LOGGER}, netns)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when something is logged."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Logged], int]:
        """What has been logged since the last call; how often messages were lost."""
        told, lost = drain(self._socket)
        return [logged(payload) for _, kind, _, payload in told if kind == _PACKET], lost

    def close(self) -> None:
        """Listen no more; the namespace's logger is what it was."""
        # While the group is ours nobody else touches the logger.
        with suppress(KernelError):  # the namespace may have gone
            sysctl.write(self._restore, self.netns)
        self._socket.close()

    def _ask(self, group: int, body: bytes) -> None:
        self._socket.send(message(_CONFIG, NLM_F_REQUEST | NLM_F_ACK, 1, 0, body, resource=group))
        # The kernel answers while it is being asked, so the answer is there.
        for sequence, kind, flags, payload in drain(self._socket)[0]:
            if kind == _ERROR and (found := refusal(sequence, flags, payload)).code:
                code, detail = _MEANINGS.get(found.code, (found.code, found.detail))
                raise KernelError.of(f"bind log group {group}", self.netns, code, detail)


def logged(payload: bytes) -> Logged:
    """One message of the group."""
    at = attributes(payload, 4)
    return Logged(
        prefix=at.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace"),
        hook=HOOKS[at[_HEADER][2]],
        mark=int.from_bytes(at.get(_MARK, b""), "big"),
        in_index=int.from_bytes(at.get(_IN, b""), "big"),
        out_index=int.from_bytes(at.get(_OUT, b""), "big"),
        packet=at.get(_PAYLOAD, b""),
    )
