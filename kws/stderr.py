"""Silence for C libraries, which write to standard error without Python."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

__all__ = ["quiet_stderr"]

_lock = threading.Lock()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what any thread writes to file descriptor 2 within the block."""
    with _lock, contextlib.ExitStack() as restore:
        sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # standard error is closed
            yield
            return
        restore.callback(os.close, kept)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        restore.callback(os.close, nowhere)
        os.dup2(nowhere, 2)
        restore.callback(os.dup2, kept, 2)
        yield
