"""Quantities: `100m`, `1.5Gi`, `1e3`. Facts: apimachinery `api/resource` (ParseQuantity)."""

from __future__ import annotations

import re
from decimal import Context, Decimal, DecimalException, Overflow
from typing import Any

QUANTITY = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]+)?")
"""The text form of `resource.Quantity`, to be matched in full."""

_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LARGEST = Decimal((1 << 63) - 1)
_SMALLEST = Decimal("1e-9")
_MOST_EXPONENT_DIGITS = 4
_CONTEXT = Context(prec=100, Emax=99999, Emin=-99999, traps=[Overflow])


def quantity(value: Any) -> Decimal | None:
    """The number that a quantity stands for, at most 2^63-1 either way as upstream caps it; None for none."""
    text = str(value)
    match = QUANTITY.fullmatch(text)
    if match is None:
        return None
    suffix = match[2] or ""
    try:
        number = _CONTEXT.create_decimal(text.removesuffix(suffix) if suffix else text)
        number = _scaled(number, suffix)
    except DecimalException:
        return -_LARGEST if text.startswith("-") else _LARGEST
    return max(-_LARGEST, min(_LARGEST, number))


def _scaled(number: Decimal, suffix: str) -> Decimal:
    if suffix in _BINARY:
        return _CONTEXT.multiply(number, Decimal(1 << _BINARY[suffix]))
    exponent = _DECIMAL.get(suffix)
    if exponent is None:
        digits = suffix[1:].lstrip("+-0")
        size = int(digits or 0) if len(digits) <= _MOST_EXPONENT_DIGITS else 10**_MOST_EXPONENT_DIGITS
        exponent = -size if "-" in suffix else size
    return _CONTEXT.scaleb(number, exponent)


def canonical(value: Any) -> str:
    """The text under which a quantity is kept: numbers become text, and what is out of bounds the bound itself.

    Other texts stay as they were written; upstream would also rewrite `0.5` as `500m`.
    """
    text, number = str(value), quantity(value) or Decimal(0)
    if abs(number) >= _LARGEST:
        return str(_LARGEST.copy_sign(number))
    if 0 < abs(number) < _SMALLEST:
        return "-1n" if number < 0 else "1n"  # rounded away from zero
    return text if len(text) <= _MOST_DIGITS else format(number.quantize(_SMALLEST), "f")


_MOST_DIGITS = 64
