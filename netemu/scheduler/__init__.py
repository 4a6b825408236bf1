"""The scheduler: finds a node for each Pod that has none, and binds it there.

`filter` says why a node cannot take a Pod, `score` which of the others is best; both only look at `state`, which is
kept up to date Pod by Pod. `scheduler` is the loop around them.
"""

from netemu.scheduler.scheduler import run

__all__ = ["run"]
