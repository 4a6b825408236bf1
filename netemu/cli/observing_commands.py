"""What the commands take that look at packets, rules and connections, and say whether they are as they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netemu.cli.options import From, Lab, Namespace, Output, To
from netemu.cli.output import Drawing, Format, ReportFormat

app = typer.Typer(rich_markup_mode=None)


@app.command()
def probe(
    source: From,
    destination: To,
    namespace: Namespace = "default",
    count: Annotated[
        int | None, typer.Option(min=1, max=1000000, help="Number of attempts; default: 1, or as --duration allows")
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Seconds to go on for")] = None,
    rate: Annotated[
        float | None, typer.Option(min=1, max=20000, help="Attempts to begin per second, whatever became of the others")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many at a time; default: 8, with --rate 1000")
    ] = None,
    keep_alive: Annotated[
        bool, typer.Option("--keep-alive", help="Requests on connections that stay open, not a new one for each")
    ] = False,
    udp: Annotated[bool, typer.Option("--udp", help="Datagrams instead of TCP connections")] = False,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds to wait for each answer")] = 2.0,
    over: Annotated[int, typer.Option(min=0, help="How many servers should answer, for the verdict on the spread")] = 0,
    during: Annotated[
        str, typer.Option(metavar="COMMAND", help="Probe while this runs, with the lab's KUBECONFIG; losses over time")
    ] = "",
    margin: Annotated[float, typer.Option(min=0, help="Seconds to probe before and after --during")] = 1.0,
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Connect again and again: who answers, from which source address, how fast, and what fails."""
    from netemu.cli import observe
    from netemu.observe.probe.prober import Pace

    if during and (count or duration):
        raise typer.BadParameter(
            "--during ends with its command: no --count, no --duration; --margin says how long after"
        )
    number = 1 if count is None and duration is None else count
    pace = Pace(number, duration, rate, concurrency or (1000 if rate else 8), timeout, keep_alive)
    change = observe.Change(during, margin) if during else None
    observe.probe(lab, source, namespace, destination, pace=pace, udp=udp, over=over, change=change, output=output)


@app.command()
def matrix(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only Services of this namespace")] = "",
    service: Annotated[str, typer.Option(help="Only this Service: NAMESPACE/NAME, or NAME in --namespace")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for silence where it is expected")] = 2.0,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Connections from each vantage to each address")] = 1,
    traces: Annotated[int, typer.Option(min=0, help="Follow a packet for so many of the differences")] = 3,
    lab: Lab = "",
    output: Annotated[
        ReportFormat, typer.Option("--output", "-o", help="table, json, junit or html")
    ] = ReportFormat.table,
    file: Annotated[Path | None, typer.Option("-w", help="Write the output there, and print only a summary")] = None,
) -> None:
    """Measure from every vantage to every Service, and compare with what should happen; exit with 1 if that differs."""
    from netemu.cli import matrix

    matrix.matrix(lab, namespace, service, count=count, timeout=timeout, traces=traces, output=output, file=file)


@app.command()
def trace(
    source: From,
    destination: To,
    namespace: Namespace = "default",
    protocol: Annotated[str, typer.Option("--proto", help="tcp, udp or icmp, which has no port")] = "tcp",
    family: Annotated[str, typer.Option(help="ipv4 or ipv6, where the destination has both")] = "",
    count: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Number of packets; 1, or with --live until interrupted")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Send nothing: tell of each new connection")] = False,
    size: Annotated[int, typer.Option(min=0, max=65535, help="Length of the packet; 0: as short as can be")] = 0,
    source_port: Annotated[int, typer.Option(min=0, max=65535, help="Port to send from; 0: a free one")] = 0,
    pcap: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all frames there as pcapng")] = None,
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Send a packet and tell its story: each link, rule, translation and route, and why not, if it fails."""
    from netemu.cli import trace

    if live:
        trace.live(
            lab, source, destination, namespace, protocol=protocol, family=family, count=count or 0, output=output
        )
        return
    trace.trace(
        lab, source, destination, namespace, protocol=protocol, family=family, count=count or 1, size=size,
        source_port=source_port, pcap=pcap, output=output,
    )  # fmt: skip


@app.command()
def dig(
    source: From,
    name: Annotated[str, typer.Argument(help="Name to look up")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TYPE]... [+tcp] [+edns[=BYTES]] [+noedns]", help="A, AAAA, SRV, PTR, ..."),
    ] = None,
    resolver: Annotated[str, typer.Option(help="Whose behaviour: glibc, musl, musl-1.2.3 (no TCP) or go")] = "glibc",
    namespace: Namespace = "default",
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Show what a resolver inside a Pod does, step by step: each name of the search path, each answer."""
    from netemu.cli import observe

    observe.dig(lab, source, namespace, name, words or [], resolver=resolver, output=output)


@app.command()
def capture(
    where: Annotated[
        list[str],
        typer.Argument(metavar="WHERE...", help="POD, node/NAME, client/NAME or underlay, each also :LINK; or a LINK"),
    ],
    write: Annotated[
        str, typer.Option("--write", "-w", metavar="FILE", help="pcapng file; - for standard output")
    ] = "",
    expression: Annotated[
        str, typer.Option("--filter", metavar="BPF", help="As tcpdump's: 'tcp port 80 and host shop/web-1'")
    ] = "",
    count: Annotated[int | None, typer.Option(min=1, help="End after so many packets")] = None,
    duration: Annotated[float, typer.Option(min=0, help="End after so many seconds")] = 0.0,
    namespace: Namespace = "default",
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Capture packets at any number of places at once, in the order of one clock, with the lab's names."""
    from netemu.cli import capture

    capture.capture(
        lab, where, namespace, file=write, expression=expression, count=count or 0, duration=duration, output=output
    )


@app.command()
def rules(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of the node")],
    service: Annotated[
        str, typer.Option(metavar="[NAMESPACE/]NAME[:PORT]", help="Only what carries this Service, rule by rule")
    ] = "",
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Show a node's rules as the kernel has them, in a packet's order, each in words, and what is off about them."""
    from netemu.cli import rules

    rules.rules(lab, node, service, output)


_SERVICE = "Only what goes to this Service: NAME or NAMESPACE/NAME, with :PORT one port of it"
_OF = "Only what this is an end of: POD, NAMESPACE/POD, node/NAME or client/NAME"


@app.command()
def flows(
    service: Annotated[str, typer.Option(help=_SERVICE)] = "",
    of: Annotated[str, typer.Option("--of", metavar="WHO", help=_OF)] = "",
    others: Annotated[bool, typer.Option("--all", help="Also what goes to no Service")] = False,
    summed: Annotated[
        bool, typer.Option("--sum", help="A line for all connections of a client to an endpoint")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print connections as they begin, change and end")
    ] = False,
    duration: Annotated[float, typer.Option(min=0, help="Follow for so many seconds")] = 0.0,
    namespace: Namespace = "default",
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Show the connections that all nodes track as flows: client, Service, endpoint, state, packets, bytes, age."""
    from netemu.cli import flows

    flows.flows(
        lab,
        service=service,
        of=of,
        namespace=namespace,
        others=others,
        summed=summed,
        follow=follow,
        duration=duration,
        output=output,
    )


@app.command()
def conntrack(
    node: Annotated[str, typer.Argument(metavar="[NODE]", help="Node")] = "",
    all_nodes: Annotated[bool, typer.Option("--all", help="Of all nodes")] = False,
    service: Annotated[str, typer.Option(help=_SERVICE)] = "",
    of: Annotated[str, typer.Option("--of", metavar="WHO", help=_OF)] = "",
    stale: Annotated[
        bool, typer.Option("--stale", help="Only entries that lead where their Service does not lead any more, and why")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Forget the entries; what was forgotten is listed")] = False,
    namespace: Namespace = "default",
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """List the entries of a node's conntrack table in its own form, with names beside them; or forget some."""
    from netemu.cli import flows

    flows.conntrack(
        lab, node, all_nodes=all_nodes, service=service, of=of, namespace=namespace, stale=stale, delete=delete,
        output=output,
    )  # fmt: skip


@app.command()
def graph(
    drawing: Annotated[
        Drawing | None, typer.Option("--format", "-o", help="Default: by the name of FILE, else dot")
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only Pods and Services of this one")] = "",
    service: Annotated[
        str, typer.Option(metavar="[NAMESPACE/]NAME", help="Only this Service and what it leads to")
    ] = "",
    flows: Annotated[bool, typer.Option("--flows", help="With the connections that nodes track now")] = False,
    write: Annotated[
        Path | None, typer.Option("--write", "-w", metavar="FILE", help="Write it there instead of printing it")
    ] = None,
    lab: Lab = "",
) -> None:
    """Draw the lab: nodes, Pods, Services and their endpoints, links, clients; dot, mermaid, SVG or HTML."""
    from netemu.cli import graph

    graph.graph(lab, drawing, namespace=namespace, service=service, flows=flows, file=write)


@app.command("test")
def run_checks(
    file: Annotated[Path, typer.Argument(help="Topology file with spec.checks")],
    lab: Annotated[str, typer.Option(help="Do the checks on this running lab instead of one of their own")] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab as it is afterwards")] = False,
    junit: Annotated[Path | None, typer.Option(help="Also write the results there as JUnit XML")] = None,
    output: Output = Format.table,
) -> None:
    """Bring up a lab, do the checks of its file in order, and take it down."""
    from netemu.cli import test

    test.test(file, lab=lab, keep=keep, junit=junit, output=output)


@app.command("dns-log")
def dns_log(
    pod: Annotated[str, typer.Argument(help="Only this Pod's queries: POD or NAMESPACE/POD")] = "",
    namespace: Namespace = "default",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted")] = False,
    seconds: Annotated[float, typer.Option("--for", min=0.1, help="Seconds to listen")] = 10.0,
    lab: Lab = "",
    output: Output = Format.table,
) -> None:
    """Print the DNS queries of Pods as they cross the wire, and how many queries each lookup costs."""
    from netemu.cli import dns

    dns.log(lab, pod, namespace, follow=follow, seconds=seconds, output=output)
