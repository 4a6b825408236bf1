"""iptables-restore that stays: started once, fed with one change after another.

Theory of operation: the tool reads its input line by line and applies a table at its COMMIT, not at the end of the
input, so it may as well be kept running. A change then costs what the kernel takes, without a process to start, its
libraries to load and a netlink socket to close (which waits for the kernel's deferred work). With `-v` the tool repeats
comments of its input, which tells that everything before them was applied. What it refuses ends it; the next change
starts another. It ends with this process too, because its input does.

Changes of others can be told from ours: nf_tables counts the transactions in a namespace, and each COMMIT is one. (One
that changes nothing is none; then the difference looks like somebody else's.)

Long inputs go to a process of their own: they would not fit into the pipe, and the tool keeps the memory it once took.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from dataclasses import dataclass, field

from netemu.kernel import netns as namespaces
from netemu.kernel.iptables import RESTORE_SECONDS, IptablesTool, naming_line
from netemu.kernel.nftables import NftNetlink
from netemu.kernel.process import reason
from netemu.model.errors import KernelError

_LONGEST = 60_000
"""Bytes of one input; a pipe takes 65,536 before writing to it blocks."""


@dataclass
class ResidentIptables:
    """Implements `Iptables` over `tool`. Not reentrant: one restore at a time."""

    tool: IptablesTool
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _answers: asyncio.StreamReader = field(init=False)
    _transport: asyncio.ReadTransport = field(init=False)
    _fed: int = field(default=0, init=False)
    """Lines that the running tool has been given so far."""
    _commits: int = field(default=0, init=False)
    _nft: NftNetlink = field(init=False)

    def __post_init__(self) -> None:
        self._nft = NftNetlink(self.tool.netns)

    async def restore(self, text: str) -> None:
        """See Iptables."""
        if len(text) > _LONGEST or not text.endswith("COMMIT\n"):  # what is never applied is refused at its end only
            await self.tool.restore(text)
        else:
            await self._restore(text)
        self._commits += text.count("\nCOMMIT\n")

    async def foreign_changes(self) -> int | None:
        """See Iptables."""
        if self.tool.legacy:
            return None
        try:
            return await self._nft.generation() - self._commits
        except KernelError:
            return None

    async def save(self, table: str = "") -> str:
        """See Iptables."""
        return await self.tool.save(table)

    async def has_chain(self, table: str, chain: str) -> bool:
        """See Iptables."""
        return await self.tool.has_chain(table, chain)

    def close(self) -> None:
        """Give the tool and the socket back; the next restore starts another."""
        self._nft.close()
        self._stop()

    async def _restore(self, text: str) -> None:
        if self._child and self._child.poll() is not None:
            self._stop()  # somebody killed it while it had nothing to do
        child = self._child or await self._start()
        applied, lines = f"# applied up to line {self._fed}\n".encode(), text.count("\n")
        try:
            async with asyncio.timeout(RESTORE_SECONDS):
                said = await self._feed(child, text.encode() + applied, applied)
        except BaseException:
            child.kill()
            self._stop()
            raise
        if said is not None:
            fed, status = self._fed, await asyncio.to_thread(child.wait)
            self._stop()
            raise naming_line(self._refusal(said, fed, status), text)
        self._fed += lines + 1

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child and child.stdin:
            child.stdin.close()
            self._transport.close()
            asyncio.get_running_loop().run_in_executor(None, child.wait)

    async def _feed(self, child: subprocess.Popen[bytes], text: bytes, applied: bytes) -> bytes | None:
        """What the tool said before it ended; None where it applied the text and waits for more."""
        assert child.stdin is not None
        said = b""
        try:
            child.stdin.write(text)
        except BrokenPipeError:  # somebody killed it
            return b"the tool has ended"
        while line := await self._answers.readline():
            if line == applied:
                return None
            said += line
        return said

    def _refusal(self, said: bytes, fed: int, status: int) -> KernelError:
        # It counts from its first line, long ago.
        why = re.sub(r"line (\d+)", lambda found: f"line {int(found[1]) - fed}", reason(said))
        return KernelError.of(f"run {self.tool.prefix}-restore", self.tool.netns, 0, f"{why} (status {status})")

    async def _start(self) -> subprocess.Popen[bytes]:
        child = self._child = await asyncio.to_thread(self._spawn)
        assert child.stdout is not None
        self._fed, self._answers = 0, asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(self._answers)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, child.stdout)
        return child

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Without stdbuf it would answer when a page is full.
        argv, pipe = ("stdbuf", "-oL", *self.tool.restore_command, "-v"), subprocess.PIPE
        try:
            with namespaces.entered(self.tool.netns):
                return subprocess.Popen(
                    argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=self.tool.environment
                )
        except OSError as error:
            raise KernelError.of(f"run {argv[0]}", self.tool.netns, error.errno or 0) from error
