"""Which schedules of CronJobs upstream's parser reads."""

from __future__ import annotations

import pytest

from netemu.apiserver.validation.schedules import check_schedule


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * *", "*/5 0-23/2 ? 1,6,12 1-5", "0 0 1 JAN-dec Mon", "59 23 31 12 6", "5/15 * * * *", "+5 * * * *",
        ", * * * *", "  0\t0 * * *  ", "*-x * * * *", "@yearly", "@annually", "@monthly", "@weekly", "@daily",
        "@midnight", "@hourly", "@every 1h30m",
    ],
)  # fmt: skip
def test_a_schedule_that_can_be_read(schedule: str) -> None:
    check_schedule(schedule)


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ("61 * * * *", "end of range (61) above maximum (59): 61"),
        ("* 24 * * *", "end of range (24) above maximum (23): 24"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * 13 *", "end of range (13) above maximum (12): 13"),
        ("* * * * 8", "end of range (8) above maximum (6): 8"),
        ("a b c d e", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("JAN * * * *", 'failed to parse int from JAN: strconv.Atoi: parsing "JAN": invalid syntax'),
        ("-1 * * * *", 'failed to parse int from : strconv.Atoi: parsing "": invalid syntax'),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("*/-2 * * * *", "negative number (-2) not allowed: -2"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("@fortnightly", "unrecognized descriptor: @fortnightly"),
        ("@every day", 'failed to parse duration @every day: time: invalid duration "day"'),
    ],
)
def test_a_schedule_that_cannot_be_read(schedule: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_schedule(schedule)

    assert str(refused.value) == why
