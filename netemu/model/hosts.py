"""Addresses as URLs and ports have them: those of IPv6 in brackets."""

from __future__ import annotations


def bracketed(address: str) -> str:
    """`10.0.0.1`, `[fd00::1]`."""
    return f"[{address}]" if ":" in address else address


def endpoint_text(address: str, port: int | None) -> str:
    """`10.0.0.1:80`, `[fd00::1]:80`."""
    return f"{bracketed(address)}:{port}"
