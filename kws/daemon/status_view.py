"""The tables that `kws status` prints of a snapshot, laid out for 80 columns."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kws.daemon.snapshot import DetectionCount, LogLine, Snapshot, SourceState
from kws.terminal import bar, level_share

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

__all__ = ["duration", "status_tables"]

_CELLS = 5
_N_DETECTIONS = 4
_N_ERRORS = 3
_LONGEST_NAME = 26
_COLOUR = {"listening": "green", "silent": "red", "stalled": "red", "opening": "yellow"}


def status_tables(snapshot: Snapshot, *, ascii_only: bool = False) -> "Group":
    """Return the snapshot for rich to print.

    The four most frequent detections and the last three errors are shown; `--json` has all.

    Parameters
    ----------
    snapshot : Snapshot
    ascii_only : bool
        Use ASCII characters only.
    """
    from rich.console import Group

    return Group(*_parts(snapshot, ascii_only=ascii_only))


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as `3 d 4 h` or `5 m 2 s`."""
    left = max(0, int(seconds))
    days, left = divmod(left, 86_400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (left, "s"))
    first = next((i for i, (n, _) in enumerate(parts) if n), 3)
    shown = [f"{n} {unit}" for n, unit in parts[first : first + 2] if n]
    return " ".join(shown) or "0 s"


def _parts(snapshot: Snapshot, *, ascii_only: bool) -> "Iterator[RenderableType]":
    from rich.text import Text

    yield Text(
        f"kws {snapshot.version}, process {snapshot.pid}, up {duration(snapshot.uptime_s)}, "
        f"CPU {100 * snapshot.cpu_share:.1f} %, memory {snapshot.rss_mb:.0f} MB"
    )
    yield Text(f"{'model' if len(snapshot.models) == 1 else 'models'} {', '.join(snapshot.models)}")
    if snapshot.page:
        yield Text(f"page {snapshot.page}", no_wrap=True, overflow="fold")
    yield ""
    yield _sources(snapshot, ascii_only=ascii_only)
    for source in snapshot.sources:
        if source.muted_by:
            yield Text(f"{source.name}: muted by {', '.join(source.muted_by)}", style="red")
        if losses := _losses(source):
            yield Text(f"{source.name}: {losses}")
    if snapshot.detections:
        yield ""
        yield from _detections(snapshot.detections, ascii_only=ascii_only)
    sinks = "; ".join(filter(None, (_hooks(snapshot), _recording(snapshot))))
    if lines := [line for line in (sinks, _mqtt(snapshot)) if line]:
        yield ""
        yield from map(Text, lines)
    if snapshot.last_errors:
        yield ""
        yield _errors(snapshot.last_errors[-_N_ERRORS:], now_s=snapshot.time_s)


def _sources(snapshot: Snapshot, *, ascii_only: bool) -> "Table":
    from rich.text import Text

    table = _table("source", "state", "for", "level dBFS", "gate", "audio")
    for one in snapshot.sources:
        table.add_row(
            Text(one.name),
            Text(one.state, style=_COLOUR.get(one.state, "")),
            duration(snapshot.time_s - one.since_s),
            _level(one, ascii_only=ascii_only),
            {None: "", True: "open", False: "closed"}[one.gate_open],
            duration(one.audio_s),
        )
    return table


def _losses(source: SourceState) -> str:
    """Return what went wrong with a source, empty if nothing did."""
    times = "once" if source.n_reopened == 1 else f"{source.n_reopened} times"
    parts = (
        f"reopened {times}" if source.n_reopened else "",
        f"{source.dropped_s:.1f} s dropped" if source.dropped_s else "",
        f"{source.n_overruns} overruns" if source.n_overruns else "",
    )
    return ", ".join(filter(None, parts))


def _detections(counts: list[DetectionCount], *, ascii_only: bool) -> "Iterator[RenderableType]":
    from rich.text import Text

    counts = sorted(counts, key=lambda one: -one.n)
    table = _table("keyword", "source", "model", "count")
    for one in counts[:_N_DETECTIONS]:
        source = _shortened(one.source, ascii_only=ascii_only)
        table.add_row(Text(one.keyword), Text(source), Text(one.model), str(one.n))
    yield table
    if rest := counts[_N_DETECTIONS:]:
        yield Text(
            f"and {sum(one.n for one in rest)} detections in {len(rest)} more rows: see --json"
        )


def _errors(lines: list[LogLine], *, now_s: float) -> "Table":
    from rich.text import Text

    table = _table("last errors", "times", "message")
    for line in lines:
        table.add_row(f"{duration(now_s - line.time_s)} ago", str(line.n), Text(line.message))
    return table


def _hooks(snapshot: Snapshot) -> str:
    runs = [f"{n} {outcome.replace('_', ' ')}" for outcome, n in snapshot.hooks.items() if n]
    return f"hooks: {', '.join(runs)}" if runs else ""


def _recording(snapshot: Snapshot) -> str:
    if snapshot.recording is None:
        return ""
    return f"recording: {snapshot.recording.n_clips} clips, {snapshot.recording.n_failed} failed"


def _mqtt(snapshot: Snapshot) -> str:
    if (mqtt := snapshot.mqtt) is None:
        return ""
    dropped = f", {mqtt.n_dropped} dropped" if mqtt.n_dropped else ""
    state = "connected to" if mqtt.connected else "no connection to"
    return f"MQTT: {state} {mqtt.broker}, {mqtt.n_sent} sent, {mqtt.n_queued} waiting{dropped}"


def _table(*columns: str) -> "Table":
    """Return a table without rules, in which text that is too long is folded."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def _level(source: SourceState, *, ascii_only: bool) -> str:
    if source.level_dbfs is None or source.state not in {"listening", "silent"}:
        return ""
    drawn = bar(level_share(source.level_dbfs), cells=_CELLS, ascii_only=ascii_only)
    return f"{drawn} {source.level_dbfs:.0f}"


def _shortened(name: str, *, ascii_only: bool) -> str:
    """Cut the middle out of a long name: ports and device numbers stand at the end."""
    if len(name) <= _LONGEST_NAME:
        return name
    gap = "..." if ascii_only else "…"
    kept = _LONGEST_NAME - len(gap)
    return f"{name[: kept // 2]}{gap}{name[-(kept - kept // 2) :]}"
