"""One fault on purpose, as it is written in a ConfigMap; what it does is in `faults.py`."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from netemu.model.errors import UserError
from netemu.model.suggest import instead

Kind = Literal["delay", "drop", "servfail", "nxdomain", "truncate", "stale"]
KINDS: tuple[str, ...] = get_args(Kind)
_LONGEST_DELAY = 60.0


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happens to which questions. `truncate` concerns UDP alone; `stale` repeats what was answered first."""

    fault: Kind
    name: str = "*"
    """A pattern for the whole name without its last dot, as shells have it: `*.example.com`."""
    pod: str = ""
    """NAMESPACE/NAME of the Pod that asks; empty: whoever asks."""
    seconds: float = 1.0
    """Of `delay`."""
    percent: int = 100
    """How many of the questions it happens to."""

    def matches(self, name: str) -> bool:
        """Whether a lower-case name without its last dot is meant."""
        return fnmatch.fnmatchcase(name, self.name.lower().rstrip(".") or "*")


def parse_fault(text: str) -> Fault:
    """A value of the ConfigMap. Raises UserError."""
    try:
        value = msgspec.json.decode(text)
        if isinstance(value, dict) and (kind := value.get("fault")) not in KINDS:
            raise UserError(f"fault {kind!r}: {instead(str(kind), KINDS, 'known are')}")
        fault = msgspec.convert(value, Fault)
    except msgspec.MsgspecError as error:
        raise UserError(f'{error}; must be like {{"fault": "delay", "name": "*.example.com", "seconds": 2}}') from error
    if not 0 <= fault.seconds <= _LONGEST_DELAY:
        raise UserError(f"seconds {fault.seconds:g}: must be 0 to {_LONGEST_DELAY:g}")
    if not 0 < fault.percent <= 100:
        raise UserError(f"percent {fault.percent}: must be 1 to 100")
    if fault.pod and fault.pod.count("/") != 1:
        raise UserError(f"pod {fault.pod!r}: must be NAMESPACE/NAME")
    return fault


def parse_faults(data: Mapping[str, str]) -> tuple[list[Fault], list[str]]:
    """The faults in the order of their keys, and what is wrong with the other values."""
    faults, wrong = [], []
    for key, text in sorted(data.items()):
        try:
            faults.append(parse_fault(text))
        except UserError as error:
            wrong.append(f"{key}: {error}")
    return faults, wrong
