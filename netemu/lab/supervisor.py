"""Keeps the processes of a lab running. Standard library only: it should cost next to nothing.

Each child is restarted when it ends, with a pause that grows from 0.2 s to 5 s while it keeps failing. SIGTERM ends
the children and then the supervisor. If the supervisor is killed, the children go on and the data path never notices;
`netemu down` knows all of them by pid and start time.

The node agent's listening sockets are held here too (`fd_store`), so that clients of emulated Pods wait for a killed
agent's successor instead of being refused.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType

from netemu.kernel.process import raise_open_files
from netemu.lab.fd_store import FdStore
from netemu.lab.processes import NODE_AGENT, SUPERVISOR, module_arguments, process_names

KEEPS_SOCKETS = NODE_AGENT
_STEADY = 10.0
"""A process that lived this long, in seconds, failed afresh."""


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot: with the pid, its identity. Empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat[stat.rindex(")") + 2 :].split()
    return "" if fields[0] == "Z" else fields[19]


class _Stopped(BaseException):
    """Raised by the signal handler, out of whatever the supervisor is waiting for."""


class Supervisor:
    """Runs until told to stop."""

    def __init__(self, lab: str, state_file: Path, log_dir: Path, members: int) -> None:
        """`members`: of etcd, 0 for a lab on SQLite."""
        self.lab, self._state_file, self._log_dir = lab, state_file, log_dir
        self._names = [name for name in process_names(members) if name != SUPERVISOR]
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._restarts = dict.fromkeys(self._names, 0)
        self._pauses = dict.fromkeys(self._names, 0.2)
        self._pidfds: dict[str, int] = {}
        self._due: dict[str, float] = {}
        """When to start again what has ended."""
        self._store = FdStore()
        self._channel: socket.socket | None = None
        self._events = selectors.DefaultSelector()

    def run(self) -> None:
        """Start everything; restart what ends."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        raise_open_files()
        try:
            for name in self._names:
                self._start(name)
            while True:
                self._turn()
        except _Stopped:
            self._end_all()

    def _turn(self) -> None:
        """Wait for what happens next and see to it."""
        now = time.monotonic()
        timeout = max(0.0, min(self._due.values()) - now) if self._due else None
        for key, _ in self._events.select(timeout):
            key.data()
        for name, due in list(self._due.items()):
            if due <= time.monotonic():
                del self._due[name]
                self._start(name)

    def _start(self, name: str) -> None:
        command = [sys.executable, "-m", *module_arguments(name, self.lab)]
        child = self._start_with_sockets(command) if name == KEEPS_SOCKETS else self._popen(name, command)
        self._children[name] = child
        self._pidfds[name] = os.pidfd_open(child.pid)
        self._events.register(self._pidfds[name], selectors.EVENT_READ, partial(self._ended, name))
        self._started[name] = time.monotonic()
        self._save()

    def _popen(self, name: str, command: list[str], inherited: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        with (self._log_dir / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=inherited)

    def _start_with_sockets(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start the process that keeps sockets here; it is told the numbers of its end of the channel and of the list
        of those that are kept."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        index = self._store.index()
        inherited = (theirs.fileno(), index)
        child = self._popen(KEEPS_SOCKETS, [*command, *map(str, inherited)], (*inherited, *self._store.descriptors))
        theirs.close()
        os.close(index)
        ours.setblocking(False)
        self._channel = ours
        self._events.register(ours, selectors.EVENT_READ, self._receive)
        return child

    def _receive(self) -> None:
        if self._channel is not None and not self._store.receive(self._channel):
            self._close_channel()

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._events.unregister(self._channel)
            self._channel.close()
            self._channel = None

    def _ended(self, name: str) -> None:
        self._children[name].wait()
        pidfd = self._pidfds.pop(name)
        self._events.unregister(pidfd)
        os.close(pidfd)
        if name == KEEPS_SOCKETS:
            self._receive()  # its last words
            self._close_channel()
        self._restarts[name] += 1
        steady = time.monotonic() - self._started[name] > _STEADY
        self._pauses[name] = 0.2 if steady else min(self._pauses[name] * 2, 5.0)
        self._due[name] = time.monotonic() + self._pauses[name]

    @staticmethod
    def _stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise _Stopped

    def _end_all(self) -> None:
        for child in self._children.values():
            child.terminate()
        deadline = time.monotonic() + 5
        for child in self._children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _save(self) -> None:
        pids = {SUPERVISOR: os.getpid(), **{name: child.pid for name, child in self._children.items()}}
        state = {
            name: {"pid": pid, "start": start_time(pid), "restarts": self._restarts.get(name, 0)}
            for name, pid in pids.items()
        }
        fresh = self._state_file.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.replace(self._state_file)


def main() -> None:
    """`python -m netemu.lab.supervisor LAB STATE_FILE LOG_DIR MEMBERS`."""
    lab, state_file, log_dir, members = sys.argv[1:]
    Supervisor(lab, Path(state_file), Path(log_dir), int(members)).run()


if __name__ == "__main__":
    main()
