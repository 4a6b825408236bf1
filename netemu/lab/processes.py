"""The processes of a lab: what they are called, which module each runs, and the other way round. Names alone.

A lab on SQLite has one control plane. On etcd each member of the control plane is two processes, etcd and what works on
it, with the member's number in their names.
"""

from __future__ import annotations

from collections.abc import Sequence

SUPERVISOR, NODE_AGENT = "supervisor", "node-agent"
_CONTROL_PLANE, _ETCD = "control-plane", "etcd"
_MODULES = {
    SUPERVISOR: "netemu.lab.supervisor",
    _CONTROL_PLANE: "netemu.lab.control_plane",
    NODE_AGENT: "netemu.lab.node_agent",
    _ETCD: "netemu.lab.etcd_member",
}
_NUMBERED = (_CONTROL_PLANE, _ETCD)


def control_planes(members: int) -> tuple[str, ...]:
    """The processes that have an API server."""
    return tuple(f"{_CONTROL_PLANE}-{number}" for number in range(1, members + 1)) or (_CONTROL_PLANE,)


def process_names(members: int) -> tuple[str, ...]:
    """All processes of a lab with so many members of etcd, the supervisor first."""
    etcd = (f"{_ETCD}-{number}" for number in range(1, members + 1))
    return (SUPERVISOR, *etcd, *control_planes(members), NODE_AGENT)


def module_arguments(name: str, lab: str) -> list[str]:
    """What comes after `python -m` for a process: module, lab, and a member's number."""
    kind = next(kind for kind in _MODULES if name.startswith(kind))
    number = name.removeprefix(kind).removeprefix("-")
    return [_MODULES[kind], lab, *([number] if number else [])]


def name_and_lab(argv: Sequence[str]) -> tuple[str, str] | None:
    """Which process of which lab a command line belongs to, if it is one of ours."""
    if len(argv) < 4 or argv[1] != "-m":
        return None
    kind = next((kind for kind, module in _MODULES.items() if module == argv[2]), None)
    if kind is None:
        return None
    number = argv[4] if kind in _NUMBERED and len(argv) > 4 and argv[4] else ""
    return f"{kind}-{number}" if number else kind, argv[3]
