"""Commands of this machine that a check, a test or a probe runs: each ends in time, with all that it has begun.

A command has a process group of its own. Whoever waits no longer, because it took too long or was interrupted, ends
the group and not the shell alone: SIGTERM, so that it may take back what it did, and SIGKILL for whatever stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from netemu.lab.paths import LabPaths
from netemu.model.errors import NetemuError, reason

_GRACE = 2.0
_PAUSE = 0.02


def environment_of(lab: str) -> dict[str, str]:
    """The environment in which kubectl talks to the lab."""
    return os.environ | {"KUBECONFIG": str(LabPaths(lab).kubeconfig)}


def run_inside(
    lab: str, place: str, command: Sequence[str], *, namespace: str = "default", input: str = "", timeout: float
) -> subprocess.CompletedProcess[str]:
    """`netemu exec`. Raises NetemuError as `run_command`."""
    netemu = [sys.executable, "-m", "netemu", "exec", "--lab", lab, "-n", namespace, place, "--"]
    return run_command([*netemu, *command], name=command[0], input=input, timeout=timeout)


def run_command(
    command: Sequence[str],
    *,
    name: str = "",
    input: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    output: TextIO | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, however it ends. What it prints is returned, or goes to `output` and standard error.

    Raises NetemuError, beginning with its `name`, where it cannot be started and where it does not end in `timeout`
    seconds; then nothing of it goes on.
    """
    name, pipe = name or command[0], subprocess.PIPE
    out, err = (output, None) if output else (pipe, pipe)
    try:
        process = subprocess.Popen(
            command, stdin=pipe, stdout=out, stderr=err, text=True, errors="replace", env=env, process_group=0
        )
    except OSError as error:
        raise NetemuError(f"{name}: {reason(error)}") from error
    with process:
        try:
            stdout, stderr = process.communicate(input, timeout)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise NetemuError(f"{name}: did not end within {timeout:g} s") from error
        except BaseException:
            _end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _end(process: subprocess.Popen[str]) -> None:
    """End all of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + _GRACE
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)  # raises once nobody is left
            time.sleep(_PAUSE)
        os.killpg(process.pid, signal.SIGKILL)
