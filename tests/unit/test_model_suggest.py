"""What is said instead of a word that is not known."""

from __future__ import annotations

import pytest

from netemu.model.suggest import instead

SERVICES = ("default/adservice", "default/web", "shop/web", "shop/api")
PODS = ("cart-6f7d4c-x2x9k", "frontend-5d8f9c-abcde", "frontend-5d8f9c-fghij")


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("wokrer", ("worker", "laptop"), "did you mean worker?"),
        ("nosuch", ("worker", "laptop"), "known: worker, laptop"),
        ("default/nosuch", SERVICES, "known: default/adservice, default/web, shop/web, shop/api"),
        ("default/wep", SERVICES, "did you mean default/web?"),
        ("shop/wep", SERVICES, "did you mean shop/web?"),
        ("spoh/api", SERVICES, "did you mean shop/api?"),
        ("frontend", PODS, "did you mean frontend-5d8f9c-abcde?"),
        ("front", PODS, f"known: {', '.join(PODS)}"),
        ("", PODS, f"known: {', '.join(PODS)}"),
    ],
)
def test_the_nearest_is_said_or_all(word: str, known: tuple[str, ...], said: str) -> None:
    assert instead(word, known, "known") == said
