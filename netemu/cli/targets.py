"""`netemu exec`: a command of this machine, run where a Pod, a node or an external client is."""

from __future__ import annotations

import os
import sys

from netemu.cli.labs import pick
from netemu.cli.root import need_root
from netemu.kernel.sandbox import DEFAULT_PATH, enter
from netemu.lab.targets import find_container, find_target, process_of


def run_inside(lab: str, target: str, namespace: str, container: str, command: list[str]) -> None:
    """Become the command, inside: with the volumes and the environment of a container, in addition to the caller's.

    In a Pod with real processes it shares their files and process numbers.
    """
    need_root()
    place = find_target(pick(lab), target, namespace)
    within = find_container(place, container)
    view, environment = place.sandbox(within), place.environment(within)
    cwd = os.getcwd()
    sys.stdout.flush()
    enter(view, process_of(within))
    _stay_in(cwd)
    os.environ.update(environment)
    search = os.environ.get("PATH") or DEFAULT_PATH
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), search, DEFAULT_PATH])
    try:
        os.execvp(command[0], command)
    except OSError as error:
        # 127 and 126 are what shells say, so scripts can tell this from the command's own failure.
        sys.stderr.write(f"error: {command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _stay_in(cwd: str) -> None:
    """Relative paths on the command line mean the caller's directory, where the view has it."""
    try:
        os.chdir(cwd)
    except OSError:
        os.chdir("/")
