import contextlib
import os

import pytest


@pytest.fixture
def broken_pipe():
    """A text stream whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - a descriptor
    yield stream
    with contextlib.suppress(BrokenPipeError):
        stream.close()
