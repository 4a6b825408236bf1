"""JUnit XML: what CI systems read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr


@dataclass(frozen=True, slots=True)
class Case:
    """One test. `failure` says in a line why it failed, "" if it did not; `text` is what else there is to say."""

    name: str
    seconds: float
    failure: str = ""
    text: str = ""
    suite: str = ""


def junit(suite: str, cases: Sequence[Case]) -> str:
    """A test suite."""
    failed = sum(bool(case.failure) for case in cases)
    lines = ['<?xml version="1.0" encoding="utf-8"?>']
    lines.append(f'<testsuite name={quoteattr(suite)} tests="{len(cases)}" failures="{failed}">')
    for case in cases:
        group = f" classname={quoteattr(case.suite)}" if case.suite else ""
        head = f'  <testcase{group} name={quoteattr(case.name)} time="{case.seconds}"'
        failure = f"><failure message={quoteattr(case.failure)}>{escape(case.text)}</failure></testcase>"
        lines.append(head + (failure if case.failure else "/>"))
    return "\n".join([*lines, "</testsuite>", ""])
