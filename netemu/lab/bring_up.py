"""`netemu up`: a checked topology becomes a running lab, or nothing.

This process decides and waits; the lab's processes do the work. Stages are waited for in the order in which they
become true, and each is timed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from netemu.lab import remains
from netemu.lab.api import LabApi, agent_status
from netemu.lab.config import LabConfig, resolve, save_config, write_file
from netemu.lab.paths import RUN, STATE, LabPaths
from netemu.lab.processes import SUPERVISOR, module_arguments
from netemu.lab.readiness import nodes_missing, proxies_failing
from netemu.lab.rollouts import rollouts_missing
from netemu.lab.rules import rules_behind
from netemu.lab.topology import TopologyFile
from netemu.model.errors import ApiError, NetemuError, UserError
from netemu.model.resources import NODES, PODS

Report = Callable[[str, float, str], None]
"""Called with (stage, seconds, what is still missing); an empty last part says that the stage is done."""

_POLL = 0.02
_LOOK = 0.25


class NotReadyError(NetemuError):
    """The lab did not come up; the text says what is missing, a line each."""


def bring_up(
    file: TopologyFile, *, timeout: float = 60.0, keep: bool = False, strict_images: bool = False, report: Report
) -> LabConfig:
    """Start a lab and return when nodes, Pods and rules are ready.

    Raises UserError if a lab of that name runs, NotReadyError if it is not up within `timeout` seconds. After any
    failure, and after Ctrl-C, nothing is left behind unless `keep`.
    """
    lab, family = file.topology.metadata.name, file.topology.spec.ip_family
    if family != "ipv4" and not Path("/proc/sys/net/ipv6").exists():
        raise UserError(f"lab {lab}: ipFamily {family} needs IPv6, which this kernel lacks or has turned off; use ipv4")
    if file.topology.spec.control_plane.store == "etcd":
        from netemu.lab.etcd_member import ensure_etcd  # as below: most labs do without

        ensure_etcd()
    with locked(lab):
        if remains.lab_processes(lab):
            raise UserError(f"lab {lab} is already running; `netemu down {lab}` ends it, --name gives this one another")
        begin = time.monotonic()
        if left := remains.remove(lab):
            report(f"clean-up of an earlier {lab} ({left})", time.monotonic() - begin, "")
        try:
            config = _write(file, strict_images=strict_images)
            if config.etcd_members:
                from netemu.lab.beginning import prepare

                _, config = prepare(config)
            _start(config)
            _wait(config, timeout, report)
        except OSError as error:
            remains.remove(lab)
            raise NetemuError(f"lab {lab}: {error.filename or STATE}: {error.strerror}") from error
        except BaseException:
            if not keep:
                remains.remove(lab)
            raise
    return config


@contextmanager
def locked(lab: str) -> Iterator[None]:
    """One `up` or `down` of a lab at a time. Leaves no file behind. Raises UserError if another is at work."""
    RUN.mkdir(parents=True, exist_ok=True)
    path = RUN / f".{lab}.lock"
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"lab {lab}: another `netemu up` or `down` of it is at work") from error
            if not _same_file(lock.fileno(), path):
                continue  # whoever held it before us has just removed it
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
                for root in (STATE, RUN):
                    with contextlib.suppress(OSError):  # other labs are there
                        root.rmdir()
            return


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write(file: TopologyFile, *, strict_images: bool) -> LabConfig:
    paths = LabPaths(file.topology.metadata.name)
    paths.run.mkdir(parents=True, mode=0o755)
    paths.state.mkdir(parents=True, mode=0o755)
    write_file(paths.manifests, msgspec.json.encode([document.value for document in file.manifests]))
    config = resolve(file.topology, strict_images=strict_images)
    save_config(config)
    return config


def _start(config: LabConfig) -> None:
    paths = LabPaths(config.name)
    arguments = [*module_arguments(SUPERVISOR, config.name), str(paths.supervisor_state), str(paths.state)]
    with paths.log("supervisor").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", *arguments, str(config.etcd_members)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip


def _wait(config: LabConfig, timeout: float, report: Report) -> None:
    deadline = time.monotonic() + timeout
    api = LabApi(config.name)
    wanted = [node.name for node in config.nodes]

    def server() -> list[str]:
        try:
            api.request("GET", "/readyz")
        except UserError:
            return ["does not answer yet"]
        return []

    def nodes() -> list[str]:
        return nodes_missing(api.list(NODES)[0], wanted)

    def pods() -> list[str]:
        if not LabPaths(config.name).posted.exists():
            return ["manifests are still being posted"]
        return rollouts_missing(api, api.list(PODS)[0])

    def rules() -> list[str]:
        return rules_behind(api, wanted)

    stages = {"API server": server, "nodes": nodes, "Pods": pods, "rules": rules}
    for stage, missing in stages.items():
        _wait_for(config.name, stage, missing, deadline, report)


def _wait_for(lab: str, stage: str, missing: Callable[[], list[str]], deadline: float, report: Report) -> None:
    begin = look = time.monotonic()
    while True:
        try:
            lines = missing()
        except (UserError, ApiError) as error:
            lines = [str(error)]
        now = time.monotonic()
        if not lines:
            report(stage, now - begin, "")
            return
        hopeless: list[str] = []
        if now > look:
            # What waiting would not mend. Asked now and then: the node agent has better things to do than to answer.
            hopeless, look = _crashed(lab) or proxies_failing(agent_status(lab)), now + _LOOK
        if hopeless or now > deadline:
            why = hopeless or lines
            raise NotReadyError("\n".join([f"lab {lab} is not ready ({stage}):", *(f"  {line}" for line in why)]))
        report(stage, now - begin, lines[0])
        time.sleep(_POLL)


def _crashed(lab: str) -> list[str]:
    """The last words of a process that keeps ending while the lab is starting, if one does.

    One end says little: the supervisor starts it again, and on a busy machine that may be all it takes.
    """
    paths = LabPaths(lab)
    try:
        state = msgspec.json.decode(paths.supervisor_state.read_bytes())
    except (OSError, msgspec.DecodeError):
        return []
    for name, entry in state.items():
        if entry["restarts"] > 1:
            words = [line for line in paths.log(name).read_text().splitlines() if line.strip()]
            last = words[-1].strip() if words else "without a word"
            return [f"the {name} process ended {entry['restarts']} times: {last}"]
    return []
