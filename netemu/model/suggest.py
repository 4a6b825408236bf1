"""What would be right instead of a word that is not known here."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def instead(word: str, known: Collection[str], introduced: str) -> str:
    """`did you mean X?` if one of the known words is near, else all of them, introduced: `known here: a, b`."""
    near = _nearest(word, known)
    return f"did you mean {near}?" if near else f"{introduced}: {', '.join(known)}"


def _nearest(word: str, known: Collection[str]) -> str:
    """By the last part of NAMESPACE/NAME: all of one namespace share the rest. A Pod by its owner's name too."""
    space, _, name = word.rpartition("/")
    names = [each.rpartition("/")[2] for each in known]
    begun = (each for each in names if each.startswith(f"{name}-"))
    found = next(iter(difflib.get_close_matches(name, names, n=1)), "") or next(begun, "")
    called = [each for each in known if found and each.rpartition("/")[2] == found]
    return next((each for each in called if each.rpartition("/")[0] == space), next(iter(called), ""))
