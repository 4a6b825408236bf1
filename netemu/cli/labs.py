"""Commands about whole labs: up, down, list, status, kubeconfig, validate."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from netemu.cli.output import Format, Progress, note, say, say_json, table
from netemu.cli.root import need_root
from netemu.lab import remains
from netemu.lab.config import load_config
from netemu.lab.paths import LabPaths, lab_names
from netemu.lab.processes import process_names
from netemu.model.errors import NetemuError, UserError


def up(
    file: Path, name: str, *, proxy_mode: str, timeout: float, keep: bool, strict_images: bool, output: Format
) -> None:
    """`netemu up`."""
    from netemu.lab.bring_up import bring_up
    from netemu.lab.topology import read_topology

    begin = time.monotonic()
    checked = read_topology(file, name=name, proxy_mode=proxy_mode)
    need_root()
    progress = Progress(quiet=output == Format.json)
    # Being asked to end is no different from Ctrl-C: what has begun is taken back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        config = bring_up(checked, timeout=timeout, keep=keep, strict_images=strict_images, report=progress)
    except KeyboardInterrupt:
        lab = checked.topology.metadata.name
        note(f"interrupted: lab {lab} is {'left as it is' if keep else 'gone again'}")
        raise SystemExit(130) from None
    seconds = round(time.monotonic() - begin, 3)
    path = str(LabPaths(config.name).kubeconfig)
    if output == Format.json:
        say_json({"lab": config.name, "kubeconfig": path, "seconds": seconds, "stages": progress.stages})
    else:
        note(f"lab {config.name} is up: {len(config.nodes)} nodes, {seconds:.2f} s")
        note(f"export KUBECONFIG={path}")


def down(lab: str, *, all_labs: bool, output: Format) -> None:
    """`netemu down`."""
    from netemu.lab.tear_down import tear_down

    need_root()
    labs = remains.known_labs() if all_labs else [lab or pick_any()]
    done = []
    for name in labs:
        begin = time.monotonic()
        found = tear_down(name)
        seconds = round(time.monotonic() - begin, 3)
        done.append({"lab": name, "removed": found, "seconds": seconds})
        if output == Format.table:
            note(f"lab {name} is down: removed {found} in {seconds:.2f} s; nothing is left")
    if output == Format.json:
        say_json(done)
    elif not labs:
        note("no labs")


def pick_any() -> str:
    """The only lab of which anything is left, running or not."""
    labs = remains.known_labs()
    if len(labs) == 1:
        return labs[0]
    raise UserError(f"which lab? here are: {', '.join(labs)}" if labs else "no labs")


def pick(lab: str) -> str:
    """The named lab, or the only running one. Raises UserError."""
    if lab:
        load_config(lab)
        return lab
    running = [name for name in lab_names() if remains.lab_processes(name)]
    if len(running) == 1:
        return running[0]
    if running:
        raise UserError(f"several labs run: {', '.join(running)}; say which with --lab")
    raise UserError("no lab is running; `netemu up FILE` starts one")


def list_labs(output: Format) -> None:
    """`netemu list`."""
    rows = [_summary(lab) for lab in remains.known_labs()]
    if output == Format.json:
        say_json(rows)
        return
    for line in table(("LAB", "STATE", "NODES", "API"), [tuple(row.values()) for row in rows]):
        say(line)


def _summary(lab: str) -> dict[str, Any]:
    processes = remains.lab_processes(lab)
    try:
        config = load_config(lab)
    except UserError:
        return {"lab": lab, "state": "Degraded" if processes else "Dead", "nodes": 0, "api": ""}
    whole = len(processes) == len(process_names(config.etcd_members))
    state = "Running" if whole else "Degraded" if processes else "Dead"
    api = f"https://127.0.0.1:{config.api_port}" if config.api_port else ""
    return {"lab": lab, "state": state if api else "Starting", "nodes": len(config.nodes), "api": api}


def status(lab: str, output: Format, *, wait: bool, timeout: float) -> None:
    """`netemu status`."""
    from netemu.lab.rules import wait_for_rules
    from netemu.lab.status import lab_status

    lab = pick(lab)
    if wait:
        wait_for_rules(lab, timeout=timeout)
    found = lab_status(lab)
    if output == Format.json:
        say_json(found)
        return
    say(f"lab {lab}: {_summary(lab)['state']}, kubeconfig {LabPaths(lab).kubeconfig}")
    sections: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("processes", ("name", "pid", "restarts", "memoryMiB")),
        (
            "nodes",
            ("name", "ready", "address", "pods", "proxy", "programmedServices", "programmedEndpointSlices", "error"),
        ),
    )
    heads = {"memoryMiB": "MEMORY MIB", "programmedServices": "SERVICES AT REVISION",
             "programmedEndpointSlices": "SLICES AT REVISION"}  # fmt: skip
    for section, columns in sections:
        say("")
        rows = [[row.get(column, "") for column in columns] for row in found[section]]
        for line in table([heads.get(column, column.upper()) for column in columns], rows):
            say(line)
    say("")
    say(f"Pods: {found['pods']['ready']} of {found['pods']['total']} Ready")
    for line in found["missing"]:
        say(f"  {line}")


def proxy_mode(lab: str, node: str, mode: str, *, timeout: float, output: Format) -> None:
    """`netemu proxy-mode`."""
    from netemu.lab.proxy_mode import change_proxy_mode

    need_root()
    rows = change_proxy_mode(pick(lab), node, mode, timeout=timeout)
    if output == Format.json:
        say_json(rows)
        return
    for row in rows:
        note(f"node {row['node']}: {row['mode']}, was {row['before'] or 'unknown'}")


def kubeconfig(lab: str) -> None:
    """`netemu kubeconfig`."""
    path = LabPaths(pick(lab)).kubeconfig
    if not path.exists():
        raise NetemuError(f"{path} is not there yet; wait for `netemu up`")
    say(str(path))


def validate(files: list[Path], output: Format) -> None:
    """`netemu validate`. Exits with 1 if any file has a mistake; the others are judged all the same."""
    from netemu.lab.topology import read_topology
    from netemu.model.yamlfile import Mistakes

    told: list[dict[str, Any]] = []
    for file in files:
        try:
            checked = read_topology(file)
        except Mistakes as mistakes:
            told.append({"file": str(file), "valid": False, "mistakes": mistakes.mistakes})
            if output == Format.table:
                note(str(mistakes))
            continue
        objects = len(checked.manifests)
        told.append({"file": str(file), "valid": True, "lab": checked.topology.metadata.name, "objects": objects})
        if output == Format.table:
            plural = "object" if objects == 1 else "objects"
            say(f"{file}: valid; lab {checked.topology.metadata.name}, {objects} {plural}")
    if output == Format.json:
        say_json(told)
    if not all(entry["valid"] for entry in told):
        raise SystemExit(1)
