"""Everything a lab has on a machine, found by asking the machine, and its removal.

`netemu down` must work after any accident: a killed `up`, a killed process, a lost state directory. So nothing here
trusts the lab's own files more than it must: processes are those that were started for the lab or live in one of its
namespaces, namespaces are those that bear its name, mounts and files are those under its directories.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netemu.kernel import netns
from netemu.lab.paths import LabPaths, lab_names
from netemu.lab.processes import name_and_lab
from netemu.lab.supervisor import start_time
from netemu.model.errors import NetemuError
from netemu.network import names


@dataclass(frozen=True, slots=True)
class Remains:
    """What there is of a lab. `bool()` is whether there is anything."""

    processes: tuple[int, ...]
    namespaces: tuple[str, ...]
    mounts: tuple[str, ...]
    directories: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.processes or self.namespaces or self.mounts or self.directories)

    def __str__(self) -> str:
        parts = [
            _count(self.processes, "process", "processes"),
            _count(self.namespaces, "namespace", "namespaces"),
            _count(self.mounts, "mount", "mounts"),
            _count(self.directories, "directory", "directories"),
        ]
        return ", ".join(filter(None, parts)) or "nothing"


def _count(things: tuple[object, ...], one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}" if things else ""


def remains(lab: str) -> Remains:
    """What this machine has of a lab, now."""
    paths = LabPaths(lab)
    return Remains(
        processes=tuple(sorted({*lab_processes(lab).values(), *inhabitants(lab_namespaces(lab))})),
        namespaces=tuple(lab_namespaces(lab)),
        mounts=tuple(_mounts_under(paths.run, paths.state)),
        directories=tuple(str(path) for path in (paths.run, paths.state) if path.exists()),
    )


def remove(lab: str) -> Remains:
    """Remove all of a lab; the answer is what was found. Raises NetemuError naming what cannot be removed."""
    from netemu.network import underlay  # the other callers of this module only look

    found = remains(lab)
    left = found
    # A process that is being born while we look shows up at the second look.
    for _ in range(3):
        _kill(left.processes)
        for mount in sorted(left.mounts, key=len, reverse=True):
            _unmount(mount)
        underlay.destroy(lab)
        for directory in left.directories:
            shutil.rmtree(directory, ignore_errors=True)
        left = remains(lab)
        if not left:
            return found
    raise NetemuError(f"lab {lab}: could not remove {left}: {left.processes + left.namespaces + left.mounts}")


def known_labs() -> list[str]:
    """Every lab of which anything is left: files, namespaces or processes."""
    found = set(lab_names())
    found |= {lab for name in netns.names() if (lab := names.lab_of(name))}
    found |= {lab for _, _, lab in _lab_commands()}
    return sorted(found)


def lab_namespaces(lab: str) -> list[str]:
    """Names of the lab's network namespaces."""
    return sorted(name for name in netns.names() if names.lab_of(name) == lab)


def lab_processes(lab: str) -> dict[str, int]:
    """The lab's own processes that are alive, by their names (`processes`) -> pid."""
    try:
        state = json.loads(LabPaths(lab).supervisor_state.read_text())
    except (OSError, ValueError):
        state = {}
    found = {name: entry["pid"] for name, entry in state.items() if entry["start"] == start_time(entry["pid"]) != ""}
    # Between starting a child and writing its pid down a supervisor can be killed; /proc knows that child all the same.
    for pid, name, of in _lab_commands():
        if of == lab and pid not in found.values():
            found.setdefault(name, pid)
    return found


def _lab_commands() -> Iterator[tuple[int, str, str]]:
    """Pid, process and lab of every `python -m netemu.lab.MODULE LAB`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if (known := name_and_lab(argv)) and _sees_our(entry, known[1]):
                yield int(entry.name), *known


def _sees_our(process: Path, lab: str) -> bool:
    """Whether a process sees what we see of the lab's directories, or, where neither sees one, has our root:
    containers, and other mount namespaces, may have labs of that name."""
    for path in (LabPaths(lab).run, LabPaths(lab).state, Path("/")):
        ours, theirs = _identity(path), _identity(Path(f"{process}/root{path}"))
        if ours or theirs:
            return ours == theirs
    return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def inhabitants(namespaces: list[str]) -> list[int]:
    """Pids of all processes that live in one of these network namespaces, whoever started them."""
    inodes = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            inodes.add(os.stat(netns.path(name)).st_ino)
    found = []
    for entry in Path("/proc").iterdir() if inodes else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino in inodes and start_time(int(entry.name)):
                    found.append(int(entry.name))
    return found


def _kill(pids: tuple[int, ...]) -> None:
    """SIGKILL at once: all their state is about to go, and a supervisor must not restart its children."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(map(start_time, pids)) and time.monotonic() < deadline:
        time.sleep(0.005)


def _mounts_under(*roots: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if any(point == str(root) or point.startswith(f"{root}/") for root in roots):
            yield point


def _unmount(point: str) -> None:
    import ctypes

    lazily = 2  # MNT_DETACH
    ctypes.CDLL(None, use_errno=True).umount2(point.encode(), lazily)
