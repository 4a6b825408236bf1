"""Starts the virtual machine of scripts/vm, carries the command's output out of it, and ends with the command's status.

QEMU gives the guest this machine's root directory over 9p, read-only, and two virtio ports for output and errors, which
are pipes here. The guest ends each stream with a random token; then all of it has arrived, and the guest is ended.
Its console goes to a file, whose end is shown when the guest ends before its command. A guest that is not ready in time
is ended and started once more, and so is one whose kernel gives up, as it does when a task stands still for two
minutes; one whose command takes longer than it may is ended, and that is said.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

FAILED = 125
READY_SECONDS = 300.0
"""A start takes half a minute; on a machine that is busy several times that."""
_READY = "vm: ready"
_TOLD_LINES = 100
"""Of the console, when a machine breaks: enough for what a kernel says of two tasks that stand still."""
_PR_SET_PDEATHSIG = 1


def qemu(vm: Path, run: Path, out: int, err: int) -> list[str]:
    """The command line of the machine; `out` and `err` are inherited files."""
    words = ["console=ttyS0", "quiet", "panic=-1", "mitigations=off", "random.trust_cpu=on", f"netemu.run={run}"]
    words += ["hung_task_panic=1"]
    # Reading an emulated processor's own clock takes no way out of the guest, unlike any other clock, and it is good;
    # a fifth level of page tables costs every miss.
    words += ["tsc=reliable", "clocksource=tsc", "no5lvl"]
    accelerator = os.environ.get("NETEMU_VM_ACCEL", "tcg")
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-accel", accelerator, "-cpu", "max", "-smp", str(min(os.cpu_count() or 1, 4))]
    command += ["-m", os.environ.get("NETEMU_VM_MEMORY", "3072"), "-serial", f"file:{run}/console"]
    command += ["-kernel", str(vm / "vmlinuz"), "-initrd", str(vm / "initrd"), "-append", " ".join(words)]
    command += ["-virtfs", "local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap"]
    command += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
    for number, (name, file) in enumerate((("out", out), ("err", err)), start=1):
        command += [
            "-add-fd",
            f"fd={file},set={number}",
            "-chardev",
            f"file,id=c{number},path=/dev/fdset/{number},append=on",
        ]
        command += ["-device", f"virtserialport,nr={number},chardev=c{number},name={name}"]
    return command


def write_command(run: Path, vm: Path, argv: Sequence[str], token: str) -> None:
    """What the guest is to do: the same directory, the same environment, the command."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in os.environ.items() if name.isidentifier()]
    lines += [f"cd {shlex.quote(os.getcwd())} || exit {FAILED}", f"exec {shlex.join(argv)}"]
    (run / "command").write_text("\n".join(lines) + "\n")
    (run / "token").write_text(token)
    (run / "vm").write_text(str(vm))


class Stream:
    """One stream of the guest: passes on what comes, up to the token; keeps what may be its beginning."""

    def __init__(self, source: int, target: int, token: bytes, after: int = 0) -> None:
        self.source, self._target, self._token, self._after = source, target, token, after
        self._held = b""
        self.rest: bytes | None = None
        """What followed the token, `after` bytes; None before."""

    def read(self) -> bool:
        """Take what is there; False when nothing more will come."""
        data = os.read(self.source, 1 << 16)
        self._held += data
        head, found, rest = self._held.partition(self._token)
        if found:
            self._pass(head)
            self._held = found + rest
            if len(rest) >= self._after:
                self.rest = rest
            return bool(data) and self.rest is None
        keep = len(self._token) - 1 if data else 0
        passed, self._held = (head[:-keep], head[-keep:]) if keep else (head, b"")
        self._pass(passed)
        return bool(data)

    def _pass(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._target, data) :]


def carry(streams: Sequence[Stream], over: Callable[[], bool] = lambda: False) -> None:
    """Pass everything on until both streams are over, or `over` says, asked each second, that it is enough."""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.source, selectors.EVENT_READ, stream)
        while selector.get_map() and not over():
            for key, _ in selector.select(1.0):
                if not key.data.read():
                    selector.unregister(key.fd)


def with_parent() -> None:
    """The guest ends when this process does, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Broken(Exception):
    """The guest did not come to run its command in time, or its kernel gave up under it; the text says which."""


class Watch:
    """Whether a guest has had its time: to be ready, and, from then on, for its command."""

    def __init__(self, console: Path, seconds: float, ready_seconds: float = READY_SECONDS) -> None:
        self._console, self._seconds, self._until = console, seconds, time.monotonic() + ready_seconds
        self.ready = False

    def over(self) -> bool:
        """Asked again and again."""
        if not self.ready and _READY in self.said():
            self.ready, self._until = True, time.monotonic() + self._seconds
        return time.monotonic() >= self._until

    def said(self) -> str:
        """The console so far."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""


def run_in_vm(vm: Path, argv: Sequence[str], seconds: float) -> int:
    """The status of the command, or FAILED with a message when the machine did not get to its end within `seconds`.

    Raises Broken.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="vm-") as folder:
        run = Path(folder)
        write_command(run, vm, argv, token)
        (out, guest_out), (err, guest_err) = os.pipe(), os.pipe()
        files = (guest_out, guest_err)
        watch = Watch(run / "console", seconds)
        command = qemu(vm, run, *files)
        guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=files, preexec_fn=with_parent)
        for file in files:
            os.close(file)
        streams = [Stream(out, 1, token.encode(), 3), Stream(err, 2, token.encode())]
        try:
            carry(streams, watch.over)
        finally:
            guest.kill()
            guest.wait()
            for stream in streams:
                os.close(stream.source)
        if streams[0].rest is not None:
            return int(streams[0].rest[:3])
        print("\n".join(watch.said().splitlines()[-_TOLD_LINES:]), file=sys.stderr)
        if not watch.over():
            raise Broken("ended before its command")
        if not watch.ready:
            raise Broken(f"was not ready after {READY_SECONDS:.0f} s")
        print(f"error: the virtual machine was ended: its command took longer than {seconds:.0f} s", file=sys.stderr)
        return FAILED


def main(vm: Path, argv: Sequence[str]) -> int:
    """Run the command; a machine that breaks gets a second chance."""
    seconds = float(os.environ.get("NETEMU_VM_SECONDS", "inf"))
    for chance in ("trying once more", "giving up"):
        try:
            return run_in_vm(vm, argv, seconds)
        except Broken as why:
            print(f"the virtual machine {why}; {chance}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
