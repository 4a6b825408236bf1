"""Tools run to their end in a namespace, and commands in a Pod's view of the machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from netemu.kernel import netns
from netemu.kernel.pidfd import Process, adopt, start_time
from netemu.kernel.process import run
from netemu.kernel.sandbox import DEFAULT_PATH, Sandbox, spawn
from netemu.model.errors import KernelError, KernelNotFound

NAME = "t-kernel-pod"
ENV = {"PATH": DEFAULT_PATH}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandbox]:
    netns.create(NAME)
    (tmp_path / "resolv.conf").write_text("nameserver 10.96.0.10\n")
    (tmp_path / "volume").mkdir()
    mounts = {
        "/etc/resolv.conf": str(tmp_path / "resolv.conf"),
        "/var/run/secrets/volume": str(tmp_path / "volume"),
        "/t-kernel/not/there/yet": str(tmp_path / "resolv.conf"),
    }
    yield Sandbox(NAME, "web-1", mounts, read_only=frozenset({"/var/run/secrets/volume"}))
    netns.delete(NAME)


async def _output(script: str, box: Sandbox, tmp_path: Path, cwd: str = "/") -> tuple[int | None, str]:
    with (tmp_path / "out").open("w") as out:
        process = spawn(["sh", "-c", script], box, env=ENV, cwd=cwd, stdout=out.fileno(), stderr=out.fileno())
    status = await process.wait()
    return status, (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("script", "output"),
    [
        pytest.param("hostname", "web-1\n", id="its hostname"),
        pytest.param("cat /etc/resolv.conf", "nameserver 10.96.0.10\n", id="its resolver file"),
        pytest.param("cat /t-kernel/not/there/yet", "nameserver 10.96.0.10\n", id="a file mounted where nothing was"),
        pytest.param("ls /sys/class/net", "lo\n", id="its own links"),
        pytest.param("echo $$", "1\n", id="itself as process 1"),
        pytest.param("ls -d /proc/[0-9]*", "/proc/1\n", id="no processes of the machine"),
        pytest.param("ls /run/netns 2>/dev/null | wc -l", "0\n", id="no namespaces of the machine"),
        pytest.param("echo x > /tmp/y && cat /tmp/y", "x\n", id="a temporary directory to write to"),
        pytest.param("readlink /proc/self/fd/0", "/dev/null\n", id="an empty input"),
        pytest.param("touch /run/secrets/volume/x 2>/dev/null || echo no", "no\n", id="a read-only volume"),
    ],
)
async def test_command_sees(box: Sandbox, tmp_path: Path, script: str, output: str) -> None:
    assert (0, output) == await _output(script, box, tmp_path)


async def test_what_a_command_writes_never_reaches_the_machine(box: Sandbox, tmp_path: Path) -> None:
    status, seen = await _output("echo x > /etc/t-kernel-new && cat /etc/t-kernel-new", box, tmp_path)

    assert (status, seen) == (0, "x\n")
    assert not Path("/etc/t-kernel-new").exists()
    assert not Path("/t-kernel").exists()


async def test_no_mount_of_a_sandbox_is_seen_outside(box: Sandbox, tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    process = spawn(["sleep", "60"], box, env=ENV, stdout=2, stderr=2)

    during = Path("/proc/self/mountinfo").read_text()
    process.kill()
    await process.wait()

    assert before == during


async def test_exit_status_is_passed_on(box: Sandbox, tmp_path: Path) -> None:
    assert await _output("exit 7", box, tmp_path) == (7, "")


async def test_working_directory_is_honoured(box: Sandbox, tmp_path: Path) -> None:
    assert await _output("pwd", box, tmp_path, cwd="/usr") == (0, "/usr\n")


async def test_killing_the_first_process_ends_all(box: Sandbox, tmp_path: Path) -> None:
    fifo = tmp_path / "volume" / "alive"
    os.mkfifo(fifo)
    writable = replace(box, read_only=frozenset())
    script = "(exec sleep 60 > /run/secrets/volume/alive) & (exec sleep 60) & wait"
    process = spawn(["sh", "-c", script], writable, env=ENV, stdout=2, stderr=2)
    with fifo.open() as alive:  # opens when the grandchild has the other end
        process.kill()

        assert await process.wait() == -9
        assert await asyncio.to_thread(alive.read) == ""  # ends when the grandchild has ended


def test_missing_command_is_named_as_container_runtimes_do(box: Sandbox) -> None:
    with pytest.raises(KernelNotFound, match='"no-such-tool": executable file not found'):
        spawn(["no-such-tool"], box, env=ENV, stdout=2, stderr=2)


def test_missing_mount_source_is_named(box: Sandbox) -> None:
    with pytest.raises(KernelNotFound, match="/no/such/file"):
        spawn(["true"], Sandbox(NAME, "web-1", {"/etc/hosts": "/no/such/file"}), env=ENV, stdout=2, stderr=2)


async def test_process_outlives_its_parent_and_is_adopted(box: Sandbox, tmp_path: Path) -> None:
    code = (
        "from netemu.kernel.sandbox import *\n"
        f"p = spawn(['sleep', '60'], Sandbox({NAME!r}, 'x'), env={ENV!r}, stdout=2, stderr=2)\n"
        "print(p.pid, p.started)"
    )
    told = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", code], text=True)
    pid, started = (int(word) for word in told.split())

    process = adopt(pid, started)

    assert process
    process.kill()
    assert await process.wait() in (-9, None)
    assert not process.alive


def test_another_process_of_the_same_number_is_not_adopted() -> None:
    assert adopt(os.getpid(), start_time(os.getpid()))
    assert adopt(os.getpid(), start_time(os.getpid()) + 1) is None


def test_signalling_an_ended_process_is_harmless() -> None:
    Process(os.getpid(), 1).kill()


def test_entering_gives_the_current_process_the_view(box: Sandbox) -> None:
    code = (
        "import os; from netemu.kernel.sandbox import *\n"
        f"enter(Sandbox({NAME!r}, 'web-1', {dict(box.mounts)!r}))\n"
        "os.execvp('sh', ['sh', '-c', 'hostname; cat /etc/resolv.conf; ls /sys/class/net; ls -d /proc/self'])"
    )

    seen = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert seen.split("\n")[:4] == ["web-1", "nameserver 10.96.0.10", "lo", "/proc/self"]


async def test_entering_a_running_process_shares_its_files(box: Sandbox, tmp_path: Path) -> None:
    fifo = tmp_path / "volume" / "ready"
    os.mkfifo(fifo)
    script = "echo mine > /etc/t-kernel-shared; echo > /run/secrets/volume/ready; exec sleep 60"
    process = spawn(["sh", "-c", script], replace(box, read_only=frozenset()), env=ENV, stdout=2, stderr=2)
    await asyncio.to_thread(fifo.read_text)
    code = (
        "import os; from netemu.kernel.sandbox import *; from netemu.kernel.pidfd import Process\n"
        f"enter(Sandbox({NAME!r}, 'web-1'), Process({process.pid}, {process.started}))\n"
        "os.execvp('sh', ['sh', '-c', 'cat /etc/t-kernel-shared; readlink /proc/1/exe; exit 5'])"
    )

    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    process.kill()
    await process.wait()

    assert (ended.returncode, ended.stdout.split()) == (5, ["mine", "/usr/bin/sleep"])


async def test_tool_runs_in_the_namespace(box: Sandbox) -> None:
    links = await run(["ip", "-br", "link"], netns=NAME)

    assert [line.split()[0] for line in links.splitlines()] == [b"lo"]


async def test_tool_gets_its_input() -> None:
    assert await run(["cat"], input=b"x" * 100000) == b"x" * 100000


async def test_failing_tool_is_named_with_its_last_line() -> None:
    with pytest.raises(KernelError, match=r"run sh: second \(status 3\)"):
        await run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])


async def test_missing_tool_is_named() -> None:
    with pytest.raises(KernelNotFound, match="no-such-tool is not installed"):
        await run(["no-such-tool"])


async def test_slow_tool_is_killed() -> None:
    with pytest.raises(KernelError, match=r"no end after 0\.05 s"):
        await run(["sleep", "60"], timeout=0.05)


async def test_cancelled_call_kills_its_tool(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    task = asyncio.create_task(run(["sh", "-c", f"exec sleep 60 > {fifo}"]))
    alive = await asyncio.to_thread(fifo.open)

    task.cancel()

    with alive, pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_python_itself_stays_in_sight_wherever_it_is_installed(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/marker").write_text("here")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    script = f"cat {tmp_path}/venv/marker; echo x > {tmp_path}/venv/new || echo read-only; ls {tmp_path}"

    status, seen = await _output(script + " 2>/dev/null", box, tmp_path)

    assert status == 0
    assert seen.startswith("here")
    assert seen.endswith("venv\n")  # nothing else of that directory
    assert not (tmp_path / "venv/new").exists()
