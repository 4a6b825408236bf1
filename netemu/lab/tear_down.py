"""`netemu down`: a lab goes, and the machine is as it was before."""

from __future__ import annotations

from netemu.lab import remains
from netemu.lab.bring_up import locked
from netemu.lab.remains import Remains
from netemu.model.errors import UserError


def tear_down(lab: str) -> Remains:
    """Remove everything of a lab; the answer is what there was. Raises UserError if there is no such lab."""
    with locked(lab):
        found = remains.remove(lab)
    if not found:
        known = ", ".join(remains.known_labs()) or "none"
        raise UserError(f"no lab named {lab!r}; here are: {known}")
    return found
