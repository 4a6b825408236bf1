"""The store on a real file system that is really full: a small tmpfs that only the test's child process sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_CHILD = """
import asyncio, json, sys
from pathlib import Path
from netemu.model.errors import ServiceUnavailable
from netemu.store.sqlite import SqliteStore

async def main():
    disk = Path(sys.argv[1])
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    store = await SqliteStore.open(disk / "store.db")
    written, refusal = [], ""
    for number in range(1000):
        try:
            written.append(await store.create(f"/{number}", bytes(5000)))
        except ServiceUnavailable as error:
            refusal = str(error)
            break
    readable = await store.get("/0") is not None
    ballast.unlink()
    later = await store.create("/later", bytes(5000))
    await store.close()
    again = await SqliteStore.open(disk / "store.db")
    kept = await again.list("/")
    await again.close()
    print(json.dumps({
        "written": written, "refusal": refusal, "readable": readable, "later": later,
        "kept": sorted(item.revision for item in kept.items), "revision": kept.revision,
    }))

asyncio.run(main())
"""


def test_a_full_disk_refuses_writes_corrupts_nothing_and_takes_writes_again_when_there_is_room(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(tmp_path), sys.executable, _CHILD],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    seen = json.loads(done.stdout)

    assert "full" in seen["refusal"]
    assert seen["readable"]
    assert 10 < len(seen["written"]) < 200
    assert seen["later"] > seen["written"][-1]
    assert seen["kept"] == [*seen["written"], seen["later"]]
    assert seen["revision"] == seen["later"]
