"""What `kws status` shows of a snapshot: tables for people."""

import time
from typing import TYPE_CHECKING

from kws.daemon.snapshot import Snapshot, SourceState
from kws.terminal import bar, level_share

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = ["duration", "status_tables"]

_CELLS = 12
_COLOUR = {"listening": "green", "stalled": "red", "opening": "yellow"}


def status_tables(snapshot: Snapshot, *, ascii_only: bool = False) -> "Group":
    """Return the snapshot for rich to print.

    Parameters
    ----------
    snapshot : Snapshot
    ascii_only : bool
        Draw with what every terminal has.
    """
    from rich.console import Group
    from rich.text import Text

    head = Text(
        f"kws {snapshot.version}, process {snapshot.pid}, up {duration(snapshot.uptime_s)}, "
        f"CPU {100 * snapshot.cpu_share:.1f} %, memory {snapshot.rss_mb:.0f} MB, "
        f"model {', '.join(snapshot.models)}"
    )

    parts: list[Text | Table] = [head, _sources(snapshot, ascii_only=ascii_only)]
    parts += [
        Text(
            f"{source.name}: audio was lost on its way to the daemon; overruns: {source.n_overruns}"
        )
        for source in snapshot.sources
        if source.n_overruns
    ]
    if snapshot.detections:
        heard = _table("Detections", "keyword source model n", ascii_only=ascii_only)
        for one in sorted(snapshot.detections, key=lambda one: -one.n):
            heard.add_row(Text(one.keyword), Text(one.source), Text(one.model), str(one.n))
        parts.append(heard)
    if any(snapshot.hooks.values()):
        parts.append(Text(f"Hooks: {_listed(snapshot.hooks)}"))
    if recording := snapshot.recording:
        parts.append(Text(f"Recording: {recording.n_clips} clips, {recording.n_failed} failed"))
    if snapshot.last_errors:
        errors = _table("Last errors", "when n what", ascii_only=ascii_only)
        for line in snapshot.last_errors[-5:]:
            errors.add_row(
                f"{duration(snapshot.time_s - line.time_s)} ago", str(line.n), Text(line.message)
            )
        parts.append(errors)
    return Group(*parts)


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as `3 d 4 h`."""
    left = max(0, int(seconds))
    days, left = divmod(left, 86_400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (left, "s"))
    first = next((i for i, (n, _) in enumerate(parts) if n), 3)
    shown = [f"{n} {unit}" for n, unit in parts[first : first + 2] if n]
    return " ".join(shown) or "0 s"


def _table(title: str, columns: str, *, ascii_only: bool) -> "Table":
    from rich.box import ASCII2, SIMPLE_HEAD
    from rich.table import Table

    box = ASCII2 if ascii_only else SIMPLE_HEAD
    made = Table(title=title, box=box, title_justify="left", pad_edge=False)
    for column in columns.split():
        made.add_column(column, overflow="fold")
    return made


def _sources(snapshot: Snapshot, *, ascii_only: bool) -> "Table":
    from rich.text import Text

    columns = "name state since dBFS gate audio lost reopened"
    made = _table("Sources", columns, ascii_only=ascii_only)
    for one in snapshot.sources:
        made.add_row(
            Text(one.name),
            Text(one.state, style=_COLOUR.get(one.state, "")),
            time.strftime("%m-%d %H:%M:%S", time.localtime(one.since_s)),
            _level(one, ascii_only=ascii_only),
            {None: "", True: "open", False: "closed"}[one.gate_open],
            duration(one.audio_s),
            f"{one.dropped_s:.1f} s",
            str(one.n_reopened),
        )
    return made


def _level(source: SourceState, *, ascii_only: bool) -> str:
    if source.level_dbfs is None or source.state != "listening":
        return ""
    drawn = bar(level_share(source.level_dbfs), cells=_CELLS, ascii_only=ascii_only)
    return f"{drawn} {source.level_dbfs:.0f}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in counts.items() if n)
