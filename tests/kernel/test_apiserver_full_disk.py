"""The API server on a file system that is really full: a small tmpfs that only the test's child process sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_CHILD = """
import asyncio, json, sys
from pathlib import Path
from tests.unit.apiserver_http import CONFIGMAPS_URL, serving

def configmap(name):
    return {"metadata": {"name": name}, "data": {"k": "x" * 5000}}

async def main():
    disk = Path(sys.argv[1])
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    async with serving(disk) as http:
        written = 0
        while (reply := await http("POST", CONFIGMAPS_URL, configmap(f"c{written}"))).status == 201:
            written += 1
        again = await http("POST", CONFIGMAPS_URL, configmap("again"))
        read = await http("GET", CONFIGMAPS_URL)
        ballast.unlink()
        later = await http("POST", CONFIGMAPS_URL, configmap("later"))
        names = [item["metadata"]["name"] for item in (await http("GET", CONFIGMAPS_URL)).body["items"]]
    async with serving(disk) as http:
        kept = [item["metadata"]["name"] for item in (await http("GET", CONFIGMAPS_URL)).body["items"]]
    print(json.dumps({
        "written": written, "refusal": reply.body, "again": again.status, "listed": len(read.body["items"]),
        "later": later.status, "names": names, "kept": kept,
    }))

asyncio.run(main())
"""


def test_a_full_disk_is_a_503_that_says_so_and_writes_go_on_when_there_is_room(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(tmp_path), sys.executable, _CHILD],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        cwd=Path(__file__).parents[2],
    )
    seen = json.loads(done.stdout)

    assert (seen["refusal"]["code"], seen["refusal"]["reason"]) == (503, "ServiceUnavailable")
    assert "database or disk is full" in seen["refusal"]["message"]
    assert (seen["again"], seen["later"]) == (503, 201)
    assert 10 < seen["written"] == seen["listed"]
    assert (
        sorted(seen["kept"]) == sorted(seen["names"]) == sorted([*(f"c{n}" for n in range(seen["written"])), "later"])
    )
