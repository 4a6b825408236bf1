"""Commands of this machine: what they print and how they end, and that nothing of them goes on for longer."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from netemu.lab.commands import run_command
from netemu.model.errors import NetemuError


def test_what_a_command_prints_and_its_exit_code() -> None:
    done = run_command(["sh", "-c", "cat; echo why >&2; exit 3"], input="hello")

    assert (done.stdout, done.stderr, done.returncode) == ("hello", "why\n", 3)


def test_a_command_that_is_not_here_is_named() -> None:
    with pytest.raises(NetemuError, match=r"^no-such-tool: No such file or directory$"):
        run_command(["no-such-tool"])


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "], ids=["", "that ignores SIGTERM"])
def test_a_command_that_takes_too_long_ends_with_what_it_has_begun(tmp_path: Path, trap: str) -> None:
    pids = tmp_path / "pids"
    script = f"{trap}sleep 1000 & echo $! > {pids}; sleep 1000 & echo $! >> {pids}; wait; wait"

    with pytest.raises(NetemuError, match=r"^sh: did not end within 1 s$"):
        run_command(["sh", "-c", script], timeout=1)

    assert len(pids.read_text().split()) == 2
    assert until_gone(pids)


def until_gone(pids: Path) -> bool:
    end = time.monotonic() + 20
    while any(lives(pid) for pid in pids.read_text().split()):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def lives(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_children_that_outlive_the_shell_and_hold_its_output_end_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    with pytest.raises(NetemuError, match="did not end within 1 s"):
        run_command(["sh", "-c", f"sleep 1000 & echo $! > {pids}"], timeout=1)

    assert until_gone(pids)


def test_an_interruption_ends_it_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def interrupt() -> None:
        while not pids.exists() or not pids.read_text().endswith("\n"):
            time.sleep(0.01)
        os.kill(os.getpid(), 2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_command(["sh", "-c", f"sleep 1000 & echo $! > {pids}; wait"])
    thread.join()

    assert until_gone(pids)
