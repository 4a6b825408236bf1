"""When a container that ended may start again. Pure, in seconds of any clock.

Upstream: kuberuntime's doBackOff with client-go's flowcontrol.Backoff: the first restart is immediate, then 10 s
doubling to 5 minutes after each end; ten minutes without a restart forget it all.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class BackOff:
    """One container's."""

    first: float = 10.0
    longest: float = 300.0
    _pause: float = 0.0
    _since: float = 0.0

    def due(self, ended: float) -> float:
        """The earliest time for a new start of a container that ended then."""
        if ended - self._since > 2 * self.longest:
            self._pause = 0.0
        return ended + self._pause

    def started_again(self, now: float) -> None:
        """A restart happened: the next one has to wait longer."""
        self._pause = min(self._pause * 2, self.longest) if self._pause else self.first
        self._since = now

    @property
    def pause(self) -> float:
        """How long the present pause is."""
        return self._pause
