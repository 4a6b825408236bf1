"""What the commands take that run a part of a cluster alone, or change one in a lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netemu.cli.options import Lab, Namespace, Output
from netemu.cli.output import Format

app = typer.Typer(rich_markup_mode=None)


@app.command("dns-fault")
def dns_fault(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND [PATTERN] | off [FAULT]...]",
            help="delay, drop, servfail, nxdomain, truncate or stale, and which names ('*.example.com')",
        ),
    ] = None,
    pod: Annotated[str, typer.Option(help="Only questions of this Pod: POD or NAMESPACE/POD")] = "",
    namespace: Namespace = "default",
    seconds: Annotated[float | None, typer.Option(help="How long delay delays; default: 1")] = None,
    percent: Annotated[int | None, typer.Option(help="How many of the questions; default: 100")] = None,
    key: Annotated[str, typer.Option("--as", help="What to call it; default: its kind")] = "",
    outside: Annotated[bool, typer.Option("--outside", help="Of the resolver outside the cluster instead")] = False,
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """List the faults of cluster DNS, or of the resolver outside; switch one on or off on a running lab."""
    from netemu.cli import dns

    dns.fault(
        lab, words or [], pod=pod, namespace=namespace, seconds=seconds, percent=percent, key=key, outside=outside,
        output=output,
    )  # fmt: skip


@app.command()
def proxy(
    config: Annotated[
        Path | None, typer.Option(help="KubeProxyConfiguration v1alpha1 file; only --cleanup does without")
    ] = None,
    hostname_override: Annotated[str, typer.Option(help="Name of the node instead of the machine's")] = "",
    cleanup: Annotated[bool, typer.Option("--cleanup", help="Remove all rules and exit")] = False,
    init_only: Annotated[bool, typer.Option("--init-only", help="Do only what needs privileges: sysctls")] = False,
) -> None:
    """Run kube-proxy alone, in the network namespace it is started in, against any API server."""
    from netemu.cli import components

    components.proxy(config, hostname_override=hostname_override, cleanup=cleanup, init_only=init_only)


@app.command("proxy-mode")
def proxy_mode(
    node: Annotated[str, typer.Argument(metavar="NODE|all", help="Node, or `all`")],
    mode: Annotated[
        str, typer.Argument(metavar="MODE", help="iptables, nftables or ipvs; `default` for the lab's own")
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait until the rules are there")] = 30.0,
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Change the mode of a node's kube-proxy on the running lab; established connections stay."""
    from netemu.cli import labs

    if not mode:
        example = "netemu proxy-mode NODE MODE, or all in place of NODE: netemu proxy-mode all nftables"
        raise typer.BadParameter(f"{node}: must be a node and a mode: {example}")
    labs.proxy_mode(lab, node, mode, timeout=timeout, output=output)


@app.command()
def dns(
    conf: Annotated[Path, typer.Option(help="Corefile")],
    kubeconfig: Annotated[Path | None, typer.Option(help="kubeconfig; without it, a Pod's own credentials")] = None,
    faults: Annotated[
        str, typer.Option(metavar="NAMESPACE/NAME", help="ConfigMap of faults on purpose, see dns-fault")
    ] = "",
    node_local: Annotated[
        str, typer.Option(metavar="ADDRESS,...", help="Be this node's cache: own these addresses, without conntrack")
    ] = "",
) -> None:
    """Run the cluster DNS server alone, against any API server."""
    from netemu.cli import components

    components.dns(conf, kubeconfig, faults, node_local)


@app.command()
def version() -> None:
    """Print the version."""
    import netemu
    from netemu.cli.output import say

    say(f"netemu {netemu.__version__}")
