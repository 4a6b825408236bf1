"""What `netemu up`, `down`, `status`, `exec`, `logs` and the like take: labs, and what is saved of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netemu.cli.options import From, Lab, LabArgument, Namespace, Output
from netemu.cli.output import Format

app = typer.Typer(rich_markup_mode=None)
snapshots = typer.Typer(help="Save what a lab has stored, look at it, put it back.", no_args_is_help=True)
_LOGS = "POD, control-plane (of several members control-plane-1, etcd-1, ...), node-agent, supervisor or audit"
SnapshotFile = Annotated[Path, typer.Argument(metavar="FILE", help="The snapshot")]


@app.command()
def up(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Topology file or plain Kubernetes manifests")],
    name: Annotated[str, typer.Option(help="Name of the lab instead of the file's own")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds until giving up")] = 60.0,
    keep: Annotated[bool, typer.Option(help="Leave a lab that did not come up as it is, to look into it")] = False,
    strict_images: Annotated[bool, typer.Option(help="Unknown images fail to pull instead of being emulated")] = False,
    proxy_mode: Annotated[str, typer.Option(help="iptables, nftables or ipvs, instead of the file's spec.proxy")] = "",
    output: Output = Format.table,
) -> None:
    """Bring up a lab; returns when nodes, Pods and rules are ready."""
    from netemu.cli import labs

    labs.up(file, name, proxy_mode=proxy_mode, timeout=timeout, keep=keep, strict_images=strict_images, output=output)


@app.command()
def down(
    lab: Annotated[
        str, typer.Argument(metavar="[LAB]", help="Name of the lab; may be left out while there is one")
    ] = "",
    lab_option: Lab = "",
    all_labs: Annotated[bool, typer.Option("--all", help="Every lab on this machine")] = False,
    output: Output = Format.table,
) -> None:
    """Remove a lab and prove that nothing of it is left."""
    from netemu.cli import labs

    labs.down(lab or lab_option, all_labs=all_labs, output=output)


@app.command("list")
def list_labs(output: Output = Format.table) -> None:
    """List the labs on this machine."""
    from netemu.cli import labs

    labs.list_labs(output)


@app.command()
def status(
    lab: LabArgument = "",
    lab_option: Lab = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="First wait until every node has the rules of the newest Services")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most; then exit with 1 and say why")] = 30.0,
    output: Output = Format.table,
) -> None:
    """Show a lab's processes, nodes, Pods and what the proxies have programmed."""
    from netemu.cli import labs

    labs.status(lab or lab_option, output, wait=wait, timeout=timeout)


@app.command()
def kubeconfig(lab: LabArgument = "", lab_option: Lab = "") -> None:
    """Print the path of the administrator's kubeconfig: export KUBECONFIG=$(netemu kubeconfig)."""
    from netemu.cli import labs

    labs.kubeconfig(lab or lab_option)


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Topology files or plain manifests")],
    output: Output = Format.table,
) -> None:
    """Check topology files; every mistake is one line with its place and what would be right."""
    from netemu.cli import labs

    labs.validate(files, output)


@app.command()
def doctor(output: Output = Format.table) -> None:
    """Show which kernel features and tools are here, and what each missing one costs."""
    from netemu.cli import doctor

    doctor.doctor(output)


@app.command("exec")
def exec_in(
    target: From,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="Command and its arguments")],
    namespace: Namespace = "default",
    container: Annotated[str, typer.Option("--container", "-c", help="Container of the Pod")] = "",
    lab: Lab = "",
) -> None:
    """Run a command of this machine inside a Pod, a node or an external client."""
    from netemu.cli import targets

    targets.run_inside(lab, target, namespace, container, command)


@app.command()
def logs(
    target: Annotated[str, typer.Argument(help=_LOGS)],
    namespace: Namespace = "default",
    container: Annotated[str, typer.Option("--container", "-c", help="Container of the Pod")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is added")] = False,
    tail: Annotated[int, typer.Option(help="Only the last lines; -1 for all")] = -1,
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Print the log of a Pod's container, of a process of the lab, or of requests to its API server (audit)."""
    from netemu.cli import logs

    logs.logs(lab, target, namespace, container, follow=follow, tail=tail, output=output)


@snapshots.command("save")
def snapshot_save(file: SnapshotFile, lab: Lab = "", output: Output = Format.table) -> None:
    """Write all objects of a lab, as they are at one revision, to a file."""
    from netemu.cli import snapshot

    snapshot.save(lab, file, output)


@snapshots.command("restore")
def snapshot_restore(
    file: SnapshotFile,
    lab: Annotated[str, typer.Option("--lab", help="Name of the lab; the snapshot's own if left out")] = "",
    output: Output = Format.table,
) -> None:
    """Replace all objects of a lab by those of a snapshot of a lab of that name."""
    from netemu.cli import snapshot

    snapshot.restore(lab, file, output)


@snapshots.command("inspect")
def snapshot_inspect(file: SnapshotFile, output: Output = Format.table) -> None:
    """Show where a snapshot is from, its revision and how many objects of each resource it has."""
    from netemu.cli import snapshot

    snapshot.inspect(file, output)
