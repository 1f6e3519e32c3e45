"""The log of labels: JSON lines that survive power cuts."""

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

__all__ = ["LabelLog", "read_labels", "read_lines"]

_Line = TypeVar("_Line", bound=msgspec.Struct)


class _LabelLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of labels.jsonl; None retracts the label before."""

    id: str
    label: str | None
    time: str


class LabelLog:
    """Append labels to labels.jsonl, each written to disk before `append` returns.

    Parameters
    ----------
    descriptor : int
        Of a file open for reading and appending.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a power cut mid-line
            os.write(descriptor, b"\n")

    def append(self, candidate_id: str, label: str | None) -> None:
        """Append the label of a candidate; None retracts the last one."""
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        line = _LabelLine(id=candidate_id, label=label, time=now)
        os.write(self._file, msgspec.json.encode(line) + b"\n")
        os.fsync(self._file)


def read_labels(path: Path) -> dict[str, str]:
    """Return the last label of each candidate id that is not retracted."""
    last = {one.id: one.label for one in read_lines(path, _LabelLine)}
    return {key: label for key, label in last.items() if label is not None}


def read_lines(path: Path, kind: type[_Line]) -> Iterator[_Line]:
    """Give the objects of JSON lines; truncated lines, as after a power cut, are skipped."""
    decoder = msgspec.json.Decoder(kind)
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            yield decoder.decode(line)
