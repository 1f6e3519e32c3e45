import pytest

from kws.daemon.day_total import DayTotal


def test_what_is_older_than_a_day_is_not_counted():
    now = [1000.0]
    total = DayTotal(lambda: now[0])
    assert total.total() == 0
    for hour in range(48):
        now[0] = 1000.0 + 3600 * hour
        total.add()
        total.add(0.5)
    assert total.total() == pytest.approx(24 * 1.5, abs=1.5)
    now[0] += 90_000
    assert total.total() == 0


def test_months_take_no_more_memory_than_a_day():
    now = [0.0]
    total = DayTotal(lambda: now[0])
    for minute in range(60 * 24 * 40):
        now[0] = 60.0 * minute
        total.add()
        total.total()
    assert len(total._steps) <= 146
