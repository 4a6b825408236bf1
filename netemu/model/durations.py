"""Durations as Go writes them, which is how Kubernetes' configuration files do."""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)")


class Duration(float):
    """Seconds, read from Go's text form: `30s`, `1h5m`, `250ms`."""

    @staticmethod
    def parse(text: object) -> Duration:
        """Raises ValueError for what is no duration."""
        if text in ("0", 0):
            return Duration(0)
        sign = -1 if isinstance(text, str) and text.startswith("-") else 1
        parts = _DURATION.findall(text) if isinstance(text, str) else []
        if not parts or "".join(a + b for a, b in parts) != str(text).lstrip("+-"):
            raise ValueError(f'Expected a duration such as "30s" or "1h5m", got {text!r}')
        return Duration(sign * sum(float(number) * _UNITS[unit] for number, unit in parts))

    @property
    def text(self) -> str:
        """As Go prints it: `24h0m0s`, `1m30s`, `250ms`."""
        if 0 < self < 1:
            return f"{self * 1000:g}ms"
        minutes, seconds = divmod(float(self), 60)
        hours, minutes = divmod(int(minutes), 60)
        return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{seconds:g}s"
