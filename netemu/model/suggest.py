"""What would be right instead of a word that is not known here."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def instead(word: str, known: Collection[str], introduced: str) -> str:
    """`did you mean X?` if one of the known words is near, else all of them, introduced: `known here: a, b`."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"{introduced}: {', '.join(known)}"
