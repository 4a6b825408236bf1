"""Python's cyclic garbage collector, in processes that keep many objects for long.

The collector reads young objects often and, now and then, all there are: with the objects and rules of 5,000 Services
200 ms in which nothing else happens, seven times during the first sync and again while changes wait. They form no
cycles, so nothing is ever found. Young ones are looked at as before; reference counting frees what is not in a cycle.
"""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 700, 10, 1000


def look_at_old_objects_seldom() -> None:
    """Read everything after a thousand collections of younger objects instead of ten; for the whole process."""
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
