import logging

from kws.daemon import sparing
from kws.daemon.sparing import Sparing


def test_a_warning_comes_at_once_and_then_once_a_minute(caplog, monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(sparing.time, "monotonic", lambda: now_s[0])
    warn = Sparing(logging.getLogger("kws.test"))
    with caplog.at_level(logging.WARNING):
        for step_s in (0, 1, 58, 2, 1):
            now_s[0] += step_s
            warn.warning("%d", now_s[0])
    assert [record.message for record in caplog.records] == ["1000", "1061"]
