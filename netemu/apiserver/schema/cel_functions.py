"""CEL as Kubernetes speaks it: the engine that evaluates expressions, and the functions that Kubernetes adds.

The engine is CEL's own (`cel-expr-python`, loaded when the first expression is compiled). Declared here: functions of
lists and regular expressions, of sets, and those that tell what a text is. Kubernetes' types for quantities, addresses
and URLs are not, nor `indexOf` of lists; an expression that uses them does not compile.
Upstream: `apiserver/pkg/cel/library`, `apiserver/pkg/cel/environment`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from netemu.apiserver.quantities import QUANTITY
from netemu.apiserver.validation.fields import cidr_text, is_ip
from netemu.model.errors import NetemuError

if TYPE_CHECKING:
    from cel_expr_python import cel

MISSING = "rules in CEL need the Python package cel-expr-python, which is not installed here"


class CelError(NetemuError):
    """An expression that does not compile, or fails; the text is the engine's."""


@lru_cache(maxsize=1)
def engine() -> Any:
    """The module of the engine. Raises CelError where it is not installed."""
    try:
        from cel_expr_python import cel
    except ImportError:
        raise CelError(MISSING) from None
    return cel


@lru_cache(maxsize=256)
def _environment(variable_type: str) -> cel.Env:
    """Where `self` and `oldSelf` are of a type, written as CEL writes it."""
    cel = engine()
    from cel_expr_python.ext.ext_optional import ExtOptional
    from cel_expr_python.ext.ext_strings import ExtStrings

    kind = cel.Type(variable_type)
    extensions = [ExtStrings(), ExtOptional()]
    return cel.NewEnv(variables={"self": kind, "oldSelf": kind}, functions=_functions(), extensions=extensions)


@lru_cache(maxsize=4096)
def compiled(expression: str, variable_type: str, result: str) -> Callable[[dict[str, Any]], Any]:
    """What evaluates an expression, given its variables; its result must be of the type `bool` or `string`.

    Raises CelError, as does what is returned.
    """
    try:
        program = _environment(variable_type).compile(expression)
    except RuntimeError as error:
        raise CelError(f"compilation failed: {_told(error)}") from None
    wanted = {"bool": engine().Type.BOOL, "string": engine().Type.STRING}[result]
    must = (
        "cel expression must evaluate to a bool" if result == "bool" else "messageExpression must evaluate to a string"
    )
    if program.return_type() not in (wanted, engine().Type.DYN):
        raise CelError(must)

    def evaluated(variables: dict[str, Any]) -> Any:
        value = program.eval(data=variables)
        if value.type() == engine().Type.ERROR:
            raise CelError(_failure(str(value.value())))
        if value.type() != wanted:
            raise CelError(must)
        return value.value()

    return evaluated


def _told(error: RuntimeError) -> str:
    return re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$", "", str(error)).strip()


def _failure(text: str) -> str:
    """The engine's text of a failed evaluation in the words of Go's."""
    if match := re.match(r'NOT_FOUND: Key not found in map : "(.*)"$', text):
        return f"no such key: {match[1]}"
    return re.sub(r"^[A-Z_]+: ", "", text)


# --- functions --------------------------------------------------------------------------------------------------------


def _functions() -> list[Any]:
    cel = engine()
    kinds = cel.Type
    anything, text, flag = kinds.DYN, kinds.STRING, kinds.BOOL
    items = kinds.List(anything)
    methods: list[tuple[str, Any, list[Any], Callable[..., Any]]] = [
        ("isSorted", flag, [items], lambda values: values == sorted(values)),
        ("sum", anything, [items], _sum),
        ("min", anything, [items], lambda values: _of_some(min, values)),
        ("max", anything, [items], lambda values: _of_some(max, values)),
        ("find", text, [text, text], _find),
        ("findAll", kinds.List(text), [text, text], lambda value, pattern: _all(value, pattern)),
    ]
    functions: list[tuple[str, Any, list[Any], Callable[..., Any]]] = [
        ("isIP", flag, [text], is_ip),
        ("isCIDR", flag, [text], lambda value: not cidr_text(value)),
        ("isURL", flag, [text], _is_url),
        ("isQuantity", flag, [text], lambda value: QUANTITY.fullmatch(value) is not None),
        ("sets.contains", flag, [items, items], _contains),
        ("sets.intersects", flag, [items, items], lambda left, right: any(one in right for one in left)),
        (
            "sets.equivalent",
            flag,
            [items, items],
            lambda left, right: _contains(left, right) and _contains(right, left),
        ),
    ]
    declared = [(entry, True) for entry in methods] + [(entry, False) for entry in functions]
    return [
        cel.FunctionDecl(name, [cel.Overload(f"{name}_{len(parameters)}_k8s", returned, parameters, member, impl)])
        for (name, returned, parameters, impl), member in declared
    ]


def _of_some(choose: Callable[[Sequence[Any]], Any], values: Sequence[Any]) -> Any:
    if not values:
        raise ValueError("min or max called on empty list")
    return choose(values)


def _sum(values: Sequence[Any]) -> Any:
    return sum(values[1:], values[0]) if values else 0


def _find(value: str, pattern: str) -> str:
    match = re.search(pattern, value)
    return match[0] if match else ""


def _all(value: str, pattern: str) -> list[str]:
    return [match[0] for match in re.finditer(pattern, value)]


def _contains(outer: Sequence[Any], inner: Sequence[Any]) -> bool:
    return all(one in outer for one in inner)


def _equivalent(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return _contains(left, right) and _contains(right, left)


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return bool((parts.scheme and (parts.netloc or parts.path)) or value.startswith("/"))
