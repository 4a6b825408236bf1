"""The truth table of a cluster's Services: from every vantage, to every address of every port, what should happen.

Rows are addresses, columns are vantages, a cell is one connection: predicted by `predict`, measured by `measure`, and
compared here. Pure. Of node ports a Pod or node asks its own node and one other, the next; a client outside asks all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from netemu.model.hosts import endpoint_text
from netemu.model.objects import Service, ServicePort
from netemu.observe.addresses import canonical
from netemu.observe.cluster import Cluster, Sender, of_family
from netemu.observe.predict import Ending, Outcome, Prediction, predict
from netemu.observe.service_ports import Via, cluster_ip_of, external_ips_of, proxied
from netemu.observe.story.story import Story

HEADLESS = "endpoint"
"""The kind of address that a headless Service has: those of its endpoints."""
_FAMILIES = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Row:
    """One address of a Service port. `node`: whose node port it is."""

    service: str
    port_name: str
    protocol: str
    kind: str
    address: str
    port: int
    node: str = ""

    @property
    def destination(self) -> str:
        """`ip:port`."""
        return endpoint_text(self.address, self.port)

    @property
    def measurable(self) -> bool:
        """Whether netemu connects with that protocol; of any other a prediction is all there is."""
        return self.protocol in ("TCP", "UDP")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a connection saw. `server` and `source`: who answered and whom he saw, as far as the answer tells."""

    outcome: Outcome
    server: str = ""
    node: str = ""
    source: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One connection, or several of the same kind.

    `difference` is why what was measured is not what was predicted; "" if it is.
    """

    row: Row
    vantage: Sender
    predicted: Prediction
    attempts: tuple[Measured, ...] = ()
    story: Story | None = None
    """Of another packet on the same way, sent afterwards."""

    @property
    def measured(self) -> Measured | None:
        """The first attempt that contradicts the prediction, else the first."""
        return next((each for each in self.attempts if self._differs(each)), next(iter(self.attempts), None))

    @property
    def difference(self) -> str:
        """In words."""
        if self.measured is None or not (why := self._differs(self.measured)):
            return ""
        count = sum(bool(self._differs(each)) for each in self.attempts)
        return why if len(self.attempts) == 1 else f"{count} of {len(self.attempts)} times {why}"

    def _differs(self, measured: Measured) -> str:
        return _difference(self.predicted, measured)


@dataclass(frozen=True, slots=True)
class Matrix:
    """The whole table. `notes` say what could not be looked from."""

    vantages: tuple[Sender, ...]
    rows: tuple[Row, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def differences(self) -> tuple[Cell, ...]:
        """Cells where something else happened than should."""
        return tuple(cell for cell in self.cells if cell.difference)

    def measured(self, found: Mapping[tuple[str, Row], Sequence[Measured]], seconds: float) -> Matrix:
        """With what was found, by vantage and row."""
        tried = ((cell, found.get((cell.vantage.name, cell.row), ())) for cell in self.cells)
        cells = tuple(replace(cell, attempts=tuple(attempts)) for cell, attempts in tried)
        return replace(self, cells=cells, seconds=seconds)

    def unexplained(self, count: int) -> tuple[Cell, ...]:
        """So many differences to be looked at, of each Service port and kind of difference one first."""
        kinds: dict[tuple[str, str, str, str], int] = defaultdict(int)
        rounds: list[tuple[int, int, Cell]] = []
        for cell in self.differences:
            kind = (cell.row.service, cell.row.port_name, cell.row.protocol, cell.difference)
            rounds.append((kinds[kind], len(rounds), cell))
            kinds[kind] += 1
        return tuple(cell for _, _, cell in sorted(rounds, key=lambda each: each[:2])[:count])

    def telling(self, stories: Mapping[tuple[str, Row], Story]) -> Matrix:
        """With stories, by vantage and row."""
        cells = tuple(
            replace(cell, story=stories.get((cell.vantage.name, cell.row), cell.story)) for cell in self.cells
        )
        return replace(self, cells=cells)

    def without(self, gone: Mapping[str, str]) -> Matrix:
        """Without some vantages, and with a note why."""
        vantages = tuple(each for each in self.vantages if each.name not in gone)
        cells = tuple(cell for cell in self.cells if cell.vantage.name not in gone)
        left = replace(self, vantages=vantages, cells=cells)
        return left.noting([f"not looked from {name}: {why}" for name, why in gone.items()])

    def noting(self, more: Sequence[str]) -> Matrix:
        """With more notes."""
        return replace(self, notes=(*self.notes, *more))


def plan(cluster: Cluster, senders: Sequence[Sender], *, namespace: str = "", service: str = "") -> Matrix:
    """The table with its predictions, of one namespace's Services, one Service (NAMESPACE/NAME), or all."""
    vantages, notes = choose_vantages(cluster, senders)
    wanted = (each for each in sorted(cluster.services, key=lambda each: each.key) if service in ("", each.key))
    chosen = [each for each in wanted if namespace in ("", each.namespace)]
    rows = [row for each in chosen for row in rows_of(cluster, each)]
    after = _next_nodes(cluster)
    cells = [
        Cell(row, vantage, predict(cluster, vantage, row.address, row.port, row.protocol))
        for row in rows
        for vantage in vantages
        if _asks(vantage, row, after)
    ]
    others = sorted({row.protocol for row in rows if not row.measurable})
    notes += [f"{protocol} ports are predicted and not measured: in parentheses" for protocol in others]
    return Matrix(tuple(vantages), tuple(rows), tuple(cells), tuple(notes))


def choose_vantages(cluster: Cluster, senders: Sequence[Sender]) -> tuple[list[Sender], list[str]]:
    """A Pod with a network of its own on every node, rather an application's than a system's; the nodes; the clients.

    Also a line for each node that has no such Pod.
    """
    pods, notes = [], []
    for name in cluster.nodes:
        here = [each for each in senders if each.node == name and not each.is_node]
        if here:
            pods.append(min(here, key=lambda each: (each.name.startswith("kube-system/"), each.name)))
        else:
            notes.append(f"node {name} has no Pod to look from")
    nodes = [each for each in senders if each.name.startswith("node/")]
    clients = [each for each in senders if not each.node]
    if not clients:
        notes.append("there is no client outside to look from")
    return [*pods, *nodes, *clients], notes


def rows_of(cluster: Cluster, service: Service) -> Iterator[Row]:
    """Every address of every port of a Service."""
    if service.headless:
        yield from _endpoint_rows(cluster, service)
        return
    if not proxied(service):
        return
    ingress = [canonical(item.ip) for item in service.status.load_balancer.ingress if item.ip]
    own = [ip for like in _FAMILIES if (ip := cluster_ip_of(service, like))]
    kinds = ((Via.CLUSTER_IP, own), (Via.EXTERNAL_IP, external_ips_of(service)), (Via.BALANCER_IP, ingress))
    for port in service.spec.ports:
        for kind, addresses in kinds:
            for address in filter(None, addresses):
                yield _row(service, port, kind, address, port.port)
        for name, machine in cluster.nodes.items() if port.node_port else ():
            for like in own:
                if address := of_family(machine.view.ips, like):
                    yield replace(_row(service, port, Via.NODE_PORT, address, port.node_port), node=name)


def _endpoint_rows(cluster: Cluster, service: Service) -> Iterator[Row]:
    found = {}
    for piece in cluster.slices_of([service]):
        for each in piece.endpoints or () if piece.address_type != "FQDN" else ():
            for port in piece.ports or () if each.conditions.ready is not False and each.addresses else ():
                protocol, address = port.protocol or "TCP", canonical(each.addresses[0])
                row = Row(service.key, port.name or "", protocol, HEADLESS, address, port.port or 0)
                found[row.port_name, row.protocol, row.destination] = row
    for _, row in sorted(found.items()):
        yield row


def _row(service: Service, port: ServicePort, kind: str, address: str, number: int) -> Row:
    return Row(service.key, port.name, port.protocol, kind, address, number)


def _next_nodes(cluster: Cluster) -> dict[str, str]:
    names = list(cluster.nodes)
    return dict(zip(names, [*names[1:], *names[:1]], strict=True))


def _asks(vantage: Sender, row: Row, after: Mapping[str, str]) -> bool:
    if not vantage.address(row.address):
        return False
    return not (row.node and vantage.node) or row.node in (vantage.node, after[vantage.node])


# --- comparing -------------------------------------------------------------------------------------------------------


def _difference(predicted: Prediction, measured: Measured) -> str:
    """Why a measurement contradicts a prediction; "" if it does not. What an answer does not tell is not compared.

    Servers tell their Pod's name without its namespace; routers tell each sender only about once a second that there
    is no way, so silence says the same.
    """
    silent = measured.outcome is Outcome.DROPPED and Outcome.UNREACHABLE in predicted.outcomes
    if measured.outcome not in predicted.outcomes and not silent:
        return f"{measured.outcome}, should be {' or '.join(predicted.outcomes)}"
    if measured.outcome is not Outcome.ANSWERED or not measured.node:
        return ""
    answers = [each for each in predicted.answers if _is(each, measured)]
    if not answers:
        right = ", ".join(sorted({each.server for each in predicted.answers}))
        return f"answered by {measured.server} on {measured.node}, should be {right}"
    if measured.source and measured.source not in {each.source for each in answers}:
        right = " or ".join(sorted({each.source for each in answers}))
        return f"the server saw {measured.source}, should be {right}"
    return ""


def _is(ending: Ending, measured: Measured) -> bool:
    """Whether the server that answered is the one; a Pod of the host network answers for its node."""
    kind, _, name = ending.server.rpartition("/")
    return name == (measured.node if kind == "node" else measured.server)
