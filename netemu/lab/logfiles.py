"""Log files of Pods and of the lab's own processes, and who asked its API server for what, read and followed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from netemu.lab.config import load_config
from netemu.lab.paths import LabPaths
from netemu.lab.processes import process_names
from netemu.lab.targets import find_target
from netemu.model.errors import UserError
from netemu.runtime import sandboxes

_POLL = 0.1


def log_file(lab: str, target: str, namespace: str, container: str) -> tuple[Path, bool]:
    """The file, and whether it is in CRI's format. Raises UserError naming what is there instead."""
    own = (*process_names(load_config(lab).etcd_members), "audit")
    if target in own:
        return LabPaths(lab).log(target), False
    place = find_target(lab, target, namespace)
    if not place.directory:
        raise UserError(f"{target} has no log; must be a Pod, or one of {', '.join(own)}")
    containers = sandboxes.load_containers(Path(place.directory))
    known = list(dict.fromkeys(entry.config.name for entry in containers))
    if not container and len({e.config.name for e in containers if not e.config.init}) != 1:
        raise UserError(f"Pod {place.name} has containers {', '.join(known)}; say which with -c")
    wanted = [e for e in containers if e.config.name == container or (not container and not e.config.init)]
    if not wanted:
        raise UserError(f"Pod {place.name}: no container {container!r}; containers here: {', '.join(known)}")
    return wanted[-1].log_path(Path(place.directory)), True


def read_lines(path: Path, *, tail: int = -1, follow: bool = False) -> Iterator[str]:
    """The last `tail` lines (-1: all), then, if asked, whatever is added until the file goes."""
    position = 0
    if path.exists():
        text = path.read_text(errors="replace")
        position = len(text.encode(errors="replace")) if follow else 0
        lines = text.splitlines()
        yield from lines if tail < 0 else lines[max(len(lines) - tail, 0) :]
    while follow and path.parent.exists():
        time.sleep(_POLL)
        if not path.exists() or path.stat().st_size <= position:
            continue
        with path.open("rb") as file:
            file.seek(position)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        position += len(whole)
        yield from whole.decode(errors="replace").splitlines()


def cri_text(line: str) -> tuple[str, str, str]:
    """Time, stream and text of a line in CRI's format."""
    moment, _, rest = line.partition(" ")
    stream, _, rest = rest.partition(" ")
    return moment, stream, rest.partition(" ")[2]
