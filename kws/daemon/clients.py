"""Who is connected to a server of the daemon's loop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clients"]


class Clients:
    """The connections of a server, each attended by a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many are attended to."""
        return len(self._tasks)

    @contextmanager
    def attending(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Attend to a connection in the running task, and close it in the end.

        Ends without an error if the client is gone or too slow, or the daemon ends.
        """
        task = asyncio.current_task()
        assert task  # noqa: S101  a coroutine always runs in a task
        self._tasks.add(task)
        try:
            yield
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def close(self, *, grace_s: float = 0.0) -> None:
        """Wait so long for those that end by themselves, then close every connection."""
        if self._tasks and grace_s:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
