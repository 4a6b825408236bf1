"""`spec.checks` of a topology file: what the lab must show, as steps that are done in order by `netemu test`.

A step either changes the lab (`apply`, `delete`, `exec`, `run`, `faults`) or claims something of it (`resolves`,
`reaches`, `refused`, `dropped`, `spread`, `source`). So a file can show what is broken, mend it, and show that it is
mended. `losslessDuring` does both: it has steps of its own, and claims that nothing is lost meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from netemu.dns.corefile import parse_duration
from netemu.dns.fault import Fault, parse_fault
from netemu.model.errors import UserError
from netemu.model.served import Served
from netemu.model.suggest import instead
from netemu.model.yamlfile import Document, Mistake, Where


class _Step(
    msgspec.Struct, frozen=True, rename={"source_": "from", "is_": "is", "inside": "in"}, kw_only=True,
    omit_defaults=True,
):  # fmt: skip
    """Base of the steps; words that Python keeps for itself have other names here."""


class Resolves(_Step, frozen=True, kw_only=True):
    """What a resolver in a place does with a name."""

    source_: str
    name: str
    types: tuple[str, ...] = ("A", "AAAA")
    resolver: str = "glibc"
    status: str = "found"
    """`found`, `not found`, `no data` or `try again`."""
    addresses: tuple[str, ...] | None = None
    count: int | None = None
    """How many addresses."""
    queries: int | None = None
    """How many questions are sent."""
    transport: str = ""
    """`udp` or `tcp`: what the last question was sent by."""
    within: str = ""
    """The longest it may take: `50ms`."""
    after: str = ""
    """The shortest it may take: `5s`."""


class Reaches(_Step, frozen=True, kw_only=True):
    """Connections, or datagrams: all of them are answered, refused or lost."""

    source_: str
    to: str
    """TO:PORT, as for `netemu trace`."""
    count: int = 1
    udp: bool = False


class Spread(_Step, frozen=True, kw_only=True):
    """Connections are answered by `over` servers, each by its share give or take `tolerance` of it."""

    source_: str
    to: str
    over: int
    count: int = 300
    tolerance: float = 0.5


class Source(_Step, frozen=True, kw_only=True):
    """The source address that the server sees: an address, or `client` for the one that was sent from."""

    source_: str
    to: str
    is_: str


class Exec(_Step, frozen=True, kw_only=True):
    """A command inside a place of the lab: its exit code, and a pattern that is found in what it prints."""

    inside: str
    command: tuple[str, ...]
    input: str = ""
    exits: int = 0
    prints: str = ""


class Run(_Step, frozen=True, kw_only=True):
    """A command of this machine, kubectl for example, with the lab's kubeconfig in KUBECONFIG."""

    command: tuple[str, ...]
    input: str = ""
    exits: int = 0
    prints: str = ""


class LosslessDuring(_Step, frozen=True, kw_only=True):
    """Connections, or datagrams, go on at a rate while steps are done; every one is answered."""

    source_: str
    to: str
    steps: tuple[CheckSpec, ...] = ()
    rate: float = 100.0
    udp: bool = False
    keep_alive: bool = msgspec.field(name="keepAlive", default=False)
    """Requests on connections that stay open, instead of a new one for each."""
    margin: str = "1s"
    """For how long before the steps and after them."""


class Reference(_Step, frozen=True, kw_only=True):
    """An object to delete."""

    kind: str
    name: str
    namespace: str = ""
    api_version: str = msgspec.field(name="apiVersion", default="v1")


class CheckSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One step; exactly one of the fields below `within` is given."""

    name: str
    namespace: str = "default"
    """Of Pods that are named without one."""
    within: str = ""
    """Try again for so long until it is so; without it, it must be so at once."""
    resolves: Resolves | None = None
    reaches: Reaches | None = None
    refused: Reaches | None = None
    dropped: Reaches | None = None
    spread: Spread | None = None
    source: Source | None = None
    lossless_during: LosslessDuring | None = None
    exec: Exec | None = None
    run: Run | None = None
    apply: tuple[dict[str, Any], ...] | None = None
    """Manifests; returns when Pods are Ready and rules programmed."""
    delete: tuple[Reference, ...] | None = None
    faults: dict[str, Fault] | None = None
    """All faults of cluster DNS from now on; `{}` for none."""
    outside_faults: dict[str, Fault] | None = None
    """The same of the resolver outside."""

    @property
    def given(self) -> list[str]:
        """The steps that are given."""
        return [field for field in STEPS if getattr(self, field) is not None]


STEPS = (
    "resolves", "reaches", "refused", "dropped", "spread", "source", "lossless_during", "exec", "run", "apply",
    "delete", "faults", "outside_faults",
)  # fmt: skip
_STATUS = ("found", "not found", "no data", "try again")


def check_mistakes(document: Document, checks: tuple[CheckSpec, ...]) -> Iterator[Mistake]:
    """What is wrong with the steps, beyond their types."""
    yield from _steps_mistakes(document, ("spec", "checks"), checks)


def _steps_mistakes(document: Document, where: Where, steps: tuple[CheckSpec, ...]) -> Iterator[Mistake]:
    for index, step in enumerate(steps):
        yield from _mistakes(document, (*where, index), step)


def _mistakes(document: Document, where: Where, check: CheckSpec) -> Iterator[Mistake]:
    # As it is written: a step whose values are wrong is not missing.
    written = [name for name in map(_written, STEPS) if (*where, name) in document.lines]
    if len(written) != 1:
        known = ", ".join(map(_written, STEPS))
        yield document.mistake(where, f"{len(written)} steps in one: must be exactly one of {known}")
    yield from _duration(document, (*where, "within"), check.within)
    if check.resolves is not None:
        yield from _resolves_mistakes(document, (*where, "resolves"), check.resolves)
    if (during := check.lossless_during) is not None:
        at = (*where, "losslessDuring")
        yield from _duration(document, (*at, "margin"), during.margin)
        if not 1 <= during.rate <= 20000:
            yield document.mistake((*at, "rate"), f"{during.rate:g}: must be 1 to 20000 attempts per second")
        if (*at, "steps", 0) not in document.lines:
            yield document.mistake((*at, "steps"), "missing: what is done meanwhile, for example an apply")
        yield from _steps_mistakes(document, (*at, "steps"), during.steps)
    yield from _change_mistakes(document, where, check)


def _resolves_mistakes(document: Document, at: Where, one: Resolves) -> Iterator[Mistake]:
    from netemu.observe.resolve.resolvers import MODELS

    if one.resolver not in MODELS:
        yield document.mistake((*at, "resolver"), instead(one.resolver, list(MODELS), "must be one of"))
    if one.status not in _STATUS:
        yield document.mistake((*at, "status"), f"{one.status!r}: must be one of {', '.join(_STATUS)}")
    yield from _duration(document, (*at, "within"), one.within)
    yield from _duration(document, (*at, "after"), one.after)


def applied(checks: Iterable[CheckSpec]) -> Iterator[dict[str, Any]]:
    """The objects that steps apply, those inside of others too."""
    for check in checks:
        yield from check.apply or ()
        yield from applied(check.lossless_during.steps if check.lossless_during else ())


def kind_mistakes(document: Document, checks: tuple[CheckSpec, ...], served: Served) -> Iterator[Mistake]:
    """Steps that name kinds which neither the API server has nor the file defines."""
    yield from _kind_mistakes(document, ("spec", "checks"), checks, served)


def _kind_mistakes(document: Document, where: Where, steps: tuple[CheckSpec, ...], served: Served) -> Iterator[Mistake]:
    for index, check in enumerate(steps):
        named = [("apply", n, o.get("apiVersion"), o.get("kind")) for n, o in enumerate(check.apply or ())]
        named += [("delete", n, gone.api_version, gone.kind) for n, gone in enumerate(check.delete or ())]
        for step, number, api_version, kind in named:
            if served.by_kind(str(api_version), str(kind)) is None:
                yield document.mistake(
                    (*where, index, step, number), f"{api_version} {kind}: not a kind of this cluster"
                )
        if (during := check.lossless_during) is not None:
            yield from _kind_mistakes(document, (*where, index, "losslessDuring", "steps"), during.steps, served)


def _change_mistakes(document: Document, where: Where, check: CheckSpec) -> Iterator[Mistake]:
    for number, obj in enumerate(check.apply or ()):
        if not isinstance(obj.get("metadata"), dict) or not obj["metadata"].get("name"):
            yield document.mistake((*where, "apply", number), "metadata.name is missing")
    if check.run is not None and not check.run.command:
        yield document.mistake((*where, "run", "command"), "must be a command and its arguments")
    for field, faults in (("faults", check.faults), ("outsideFaults", check.outside_faults)):
        for key, fault in (faults or {}).items():
            try:
                parse_fault(msgspec.json.encode(fault).decode())
            except UserError as error:
                yield document.mistake((*where, field, key), str(error))


def _written(step: str) -> str:
    """The field of a step as a file has it: `outsideFaults`."""
    first, *rest = step.split("_")
    return first + "".join(map(str.capitalize, rest))


def _duration(document: Document, where: Where, text: str) -> Iterator[Mistake]:
    if text and parse_duration(text) is None:
        yield document.mistake(where, f"{text!r}: must be a duration like 50ms or 5s")
