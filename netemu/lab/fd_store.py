"""The supervisor's half of the store of listening sockets: descriptors by name. Standard library only.

The node agent sends messages over a SOCK_SEQPACKET pair, `keep NAME` with a descriptor as ancillary data and
`forget NAME...`, which is answered when it is done. Messages that were on their way when the agent died still count.
A new agent gets all descriptors by inheritance, as systemd hands them over, and a list of them in a memory file:
nothing has to be sent, however many there are. `fd_client` is the agent's half.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct

LONGEST = 65536
"""Bytes of a message."""
_INT = struct.Struct("=i")
KEEP, FORGET, DONE = "keep", "forget", b"done"


class FdStore:
    """Descriptors by name. The names are the agent's matter."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._fds)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them, to be inherited."""
        return tuple(self._fds.values())

    def receive(self, channel: socket.socket) -> bool:
        """Do what the messages that have arrived say; False once nobody is at the other end any more.

        The channel does not block.
        """
        while True:
            try:
                data, ancillary, _, _ = channel.recvmsg(LONGEST, socket.CMSG_LEN(_INT.size), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            verb, *names = data.decode().split(" ")
            # Where it has as many open files as it may, the kernel delivers messages without their descriptors.
            if verb == KEEP and ancillary and len(ancillary[0][2]) == _INT.size:
                self._put(names[0], *_INT.unpack(ancillary[0][2]))
            elif verb == FORGET:
                self.forget(names)
                with contextlib.suppress(OSError):
                    channel.send(DONE)

    def forget(self, names: list[str]) -> None:
        """Close them."""
        for name in names:
            if (fd := self._fds.pop(name, -1)) >= 0:
                os.close(fd)

    def index(self) -> int:
        """A memory file with a JSON object, name to descriptor; the caller closes it."""
        fd = os.memfd_create("netemu-sockets")
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(json.dumps(self._fds).encode())
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _put(self, name: str, fd: int) -> None:
        self.forget([name])
        self._fds[name] = fd
