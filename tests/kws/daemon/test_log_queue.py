import logging
import os
import threading
import time

from kws.daemon.log_queue import log_in_thread
from kws.daemon.monitoring import LastErrors

_log = logging.getLogger("kws.test")


def test_records_come_to_the_handlers_in_order(caplog):
    with caplog.at_level(logging.INFO), log_in_thread():
        for i in range(100):
            _log.info("%d", i)
    assert caplog.messages == [str(i) for i in range(100)]


def test_handlers_of_higher_levels_get_no_more_than_they_want(caplog):
    try:
        caplog.handler.setLevel(logging.ERROR)
        with log_in_thread():
            _log.warning("one")
            _log.error("two")
    finally:
        caplog.handler.setLevel(0)
    assert caplog.messages == ["two"]


def test_a_standard_error_that_nobody_reads_stops_nobody():
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    started_s = time.monotonic()
    try:
        with log_in_thread():
            for _ in range(3000):
                _log.warning(100 * "x")
        assert time.monotonic() - started_s < 10
    finally:
        root.removeHandler(handler)
        drain = threading.Thread(
            target=lambda: [0 for _ in iter(lambda: os.read(reader, 65_536), b"")]
        )
        drain.start()
        for thread in threading.enumerate():
            if thread.name == "kws-the log":
                thread.join(30)
        stream.close()
        drain.join(30)
        os.close(reader)


def test_a_full_queue_of_the_log_does_not_warn_without_end(caplog):
    """Its warning that a record was dropped is itself logged, and would be dropped again."""
    go_on = threading.Event()

    class Blocked(logging.Handler):
        def emit(self, record):
            go_on.wait(60)

    errors, logger = LastErrors(), logging.getLogger("kws")
    logging.getLogger().addHandler(blocked := Blocked())
    logger.addHandler(errors)
    try:
        with log_in_thread():
            for i in range(1500):
                _log.info("%d", i)
                _log.warning("%d", i)
            go_on.set()
    finally:
        logger.removeHandler(errors)
        logging.getLogger().removeHandler(blocked)
    assert any("the log: an event was dropped" in line.message for line in errors.lines())
