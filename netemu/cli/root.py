"""Who may work with network namespaces."""

from __future__ import annotations

import os
import sys

from netemu.model.errors import NetemuError


def need_root() -> None:
    """Raise NetemuError, naming the way out, for somebody who may not make or enter namespaces."""
    if os.geteuid() != 0:
        command = " ".join(sys.argv[1:])
        raise NetemuError(f"netemu {sys.argv[1]} needs root to work with network namespaces: sudo netemu {command}")
