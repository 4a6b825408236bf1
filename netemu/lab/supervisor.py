"""Keeps the two processes of a lab running. Standard library only: it should cost next to nothing.

Each child is restarted when it ends, with a pause that grows from 0.2 s to 5 s while it keeps failing. SIGTERM ends
the children and then the supervisor. If the supervisor is killed, the children go on and the data path never notices;
`netemu down` knows all three by pid and start time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PROCESSES = {"control-plane": "netemu.lab.control_plane", "node-agent": "netemu.lab.node_agent"}
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

    def __init__(self, lab: str, state_file: Path, log_dir: Path) -> None:
        self.lab, self._state_file, self._log_dir = lab, state_file, log_dir
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._restarts = dict.fromkeys(PROCESSES, 0)
        self._pauses = dict.fromkeys(PROCESSES, 0.2)

    def run(self) -> None:
        """Start everything; restart what ends."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        try:
            for name in PROCESSES:
                self._start(name)
            while True:
                pid, status = os.wait()
                self._ended(pid, os.waitstatus_to_exitcode(status))
        except _Stopped:
            self._end_all()

    def _start(self, name: str) -> None:
        with (self._log_dir / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", PROCESSES[name], self.lab], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._started[name] = time.monotonic()
        self._save()

    def _ended(self, pid: int, code: int) -> None:
        name = next((name for name, child in self._children.items() if child.pid == pid), "")
        if not name:
            return
        self._children[name].returncode = code
        self._restarts[name] += 1
        steady = time.monotonic() - self._started[name] > _STEADY
        self._pauses[name] = 0.2 if steady else min(self._pauses[name] * 2, 5.0)
        time.sleep(self._pauses[name])
        self._start(name)

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
        pids = {"supervisor": os.getpid(), **{name: child.pid for name, child in self._children.items()}}
        state = {
            name: {"pid": pid, "start": start_time(pid), "restarts": self._restarts.get(name, 0)}
            for name, pid in pids.items()
        }
        fresh = self._state_file.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.replace(self._state_file)


def main() -> None:
    """`python -m netemu.lab.supervisor LAB STATE_FILE LOG_DIR`."""
    lab, state_file, log_dir = sys.argv[1:]
    Supervisor(lab, Path(state_file), Path(log_dir)).run()


if __name__ == "__main__":
    main()
