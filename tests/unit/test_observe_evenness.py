"""Whether answers are spread evenly: the chi-square test and what is said of it."""

from __future__ import annotations

import math
import random

import pytest

from netemu.observe.probe.evenness import EVEN, ROTATION, TOO_FEW, UNEVEN, chi_square_p, evenness


@pytest.mark.parametrize(
    ("degrees", "statistic", "p"),
    [
        # The critical values that every table of the distribution has.
        (1, 3.841, 0.05), (2, 5.991, 0.05), (3, 7.815, 0.05), (4, 9.488, 0.05), (9, 16.919, 0.05),
        (10, 23.209, 0.01), (30, 50.892, 0.01), (99, 134.642, 0.01), (100, 135.807, 0.01), (5, 20.515, 0.001),
        (10, 3.940, 0.95), (1, 0.0, 1.0),
    ],
)  # fmt: skip
def test_p_is_what_tables_have(degrees: int, statistic: float, p: float) -> None:
    assert chi_square_p(statistic, degrees) == pytest.approx(p, rel=0.002)


def test_p_of_large_numbers_is_still_a_probability() -> None:
    assert chi_square_p(1e6, 500) == 0.0
    assert chi_square_p(1e-9, 5000) == pytest.approx(1.0)
    assert math.isclose(chi_square_p(5000, 5000), 0.5, abs_tol=0.01)


@pytest.mark.parametrize(
    ("counts", "over", "verdict"),
    [
        pytest.param([104, 102, 94], 0, EVEN, id="a fair draw"),
        pytest.param([200, 60, 40], 0, UNEVEN, id="one server has most"),
        pytest.param([150, 150], 3, UNEVEN, id="one server never answers"),
        pytest.param([100, 100, 100], 0, ROTATION, id="taking turns"),
        pytest.param([2, 1, 1], 0, TOO_FEW, id="four answers of three servers"),
    ],
)
def test_verdict(counts: list[int], over: int, verdict: str) -> None:
    found = evenness(counts, over)

    assert found is not None
    assert (found.verdict, found.servers, found.degrees) == (verdict, over or len(counts), (over or len(counts)) - 1)


def test_nothing_to_compare_has_no_verdict() -> None:
    assert (evenness([]), evenness([5]), evenness([], 3)) == (None, None, None)


def test_fair_draws_are_hardly_ever_called_uneven() -> None:
    draw, verdicts = random.Random(1), []
    for _ in range(300):
        drawn = draw.choices(range(4), k=100)
        found = evenness([drawn.count(server) for server in range(4)], 4)
        verdicts.append(found.verdict if found else "")

    assert verdicts.count(UNEVEN) <= 3
    assert verdicts.count(EVEN) > 290
