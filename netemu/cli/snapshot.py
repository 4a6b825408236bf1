"""`netemu snapshot`: what a lab has stored, in a file, and back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from netemu.apiserver.keys import parts_of
from netemu.cli.labs import pick_any
from netemu.cli.output import Format, note, say, say_json, table
from netemu.cli.root import need_root
from netemu.lab import snapshots
from netemu.lab.config import load_config
from netemu.store.sqlite_snapshot import SnapshotFile, read_snapshot


def save(lab: str, file: Path, output: Format) -> None:
    """`netemu snapshot save`."""
    need_root()
    saved = snapshots.save(_stored(lab), file)
    _tell(saved, output, f"saved lab {saved.origin} at revision {saved.revision}: {len(saved.keys)} objects in {file}")


def restore(lab: str, file: Path, output: Format) -> None:
    """`netemu snapshot restore`."""
    need_root()
    found = read_snapshot(file)
    restored = snapshots.restore(_stored(lab or found.origin), file)
    _tell(restored, output, f"lab {restored.origin} has the {len(restored.keys)} objects of {file}")


def inspect(file: Path, output: Format) -> None:
    """`netemu snapshot inspect`."""
    found = read_snapshot(file)
    if output == Format.json:
        say_json(_summary(found))
        return
    say(f"lab {found.origin}, saved {found.saved}, revision {found.revision}")
    for line in table(("RESOURCE", "OBJECTS"), [*_counts(found).items(), ("total", len(found.keys))]):
        say(line)


def _stored(lab: str) -> str:
    """A lab of which there is a store, running or not. Raises UserError."""
    lab = lab or pick_any()
    load_config(lab)
    return lab


def _tell(found: SnapshotFile, output: Format, text: str) -> None:
    if output == Format.json:
        say_json(_summary(found))
    else:
        note(text)


def _summary(found: SnapshotFile) -> dict[str, Any]:
    return {"lab": found.origin, "saved": found.saved, "revision": found.revision, "objects": _counts(found)}


def _counts(found: SnapshotFile) -> dict[str, int]:
    """Objects per resource, as kubectl names it."""
    counts = Counter(parts_of(key)[0] for key in found.keys)
    named = {f"{plural}.{group}" if group else plural: count for (group, plural), count in counts.items()}
    return dict(sorted(named.items()))
