"""Who may work with network namespaces."""

from __future__ import annotations

import os
import sys

from netemu.model.errors import NetemuError


def need_root_everywhere() -> None:
    """As `need_root`, for what has sockets in every node and every Pod that it looks at: as many as it takes."""
    from netemu.kernel.process import raise_open_files

    need_root()
    raise_open_files()


def need_root() -> None:
    """Raise NetemuError, naming the way out, for somebody who may not make or enter namespaces."""
    if os.geteuid() != 0:
        command = " ".join(sys.argv[1:])
        raise NetemuError(f"netemu {sys.argv[1]} needs root to work with network namespaces: sudo netemu {command}")
