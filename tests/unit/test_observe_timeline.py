"""Attempts over time: counted, and drawn."""

from __future__ import annotations

from netemu.observe.probe.result import Answer, Attempt
from netemu.observe.probe.timeline import Bucket, Event, draw, timeline

GOOD = Answer("web-1")


def attempts(count: int, begun: float, *, lost: int = 0) -> list[Attempt]:
    good = [Attempt(GOOD, begun=begun) for _ in range(count - lost)]
    return good + [Attempt(error="refused", begun=begun) for _ in range(lost)]


def test_attempts_are_counted_in_the_interval_in_which_they_began() -> None:
    line = timeline([*attempts(3, 0.05), *attempts(4, 0.31, lost=2)], [Event(0.2, "the change begins")])

    assert line.buckets == (Bucket(0.0, 3, 0), Bucket(0.1, 0, 0), Bucket(0.2, 0, 0), Bucket(0.3, 4, 2))
    assert line.lost == 2


def test_events_after_the_last_attempt_have_their_interval() -> None:
    assert len(timeline(attempts(1, 0.0), [Event(0.95, "it has ended")]).buckets) == 10


def test_drawing_has_a_bar_for_each_interval_and_marks_events() -> None:
    made = [*attempts(8, 0.05), *attempts(8, 0.15, lost=1), *attempts(8, 0.25, lost=8)]

    answered, lost, mark, scale = draw(timeline(made, [Event(0.12, "the change begins")]))

    assert answered == "     0.0 s  answered  █▇ "
    assert lost == "            lost      ·▁█"
    assert mark == "                       ^ 0.12 s the change begins"
    assert "100 ms; the highest is 8 attempts" in scale


def test_a_single_loss_among_many_shows() -> None:
    _, lost, _ = draw(timeline(attempts(5000, 0.0, lost=1), []))

    assert lost.endswith("▁")


def test_long_timelines_go_on_in_the_next_line_where_their_events_are_too() -> None:
    made = [one for tenth in range(150) for one in attempts(1, tenth / 10 + 0.05)]

    lines = list(draw(timeline(made, [Event(12.0, "late")])))

    assert [line[:10].strip() for line in lines] == ["0.0 s", "", "10.0 s", "", "", ""]
    assert lines[4].index("^") == 22 + 20


def test_nothing_attempted_is_drawn_as_nothing() -> None:
    answered, lost, scale = draw(timeline([], []))

    assert (answered.split(), lost.split()) == (["0.0", "s", "answered"], ["lost", "·"])
    assert "the highest is 0 attempts" in scale
