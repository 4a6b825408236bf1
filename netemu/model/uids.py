"""UIDs of objects and of requests."""

from __future__ import annotations

import random
import uuid


def new_uid() -> str:
    """A UUID of version 4: unique, not secret.

    `uuid.uuid4` asks the kernel each time, and a busy event loop loses its turn to other threads by that.
    """
    return str(uuid.UUID(int=random.getrandbits(128), version=4))
