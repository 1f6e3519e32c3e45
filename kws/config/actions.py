"""Tables of what follows a detection: hooks, recorded clips, and the daemon around them."""

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import force_setattr

from kws.command_lines import shell_operator
from kws.config.table import Probability, Table
from kws.errors import HookError
from kws.names import nfc

__all__ = ["DaemonSettings", "HookEvent", "HookSettings", "RecordingSettings"]

HookEvent = Literal[
    "detection", "start", "listening", "silent", "stalled", "recovered", "error", "stop"
]


class HookSettings(Table, frozen=True, kw_only=True):
    """`[[hooks]]`: a command to run on a detection, or when the daemon's state changes."""

    _error = HookError

    keyword: str = "*"
    """The keyword, or `*` for every one."""
    command: list[str] | str
    """Program and arguments; a string is split like a shell line, but not run by a shell."""
    shell: bool = False
    """True runs a string by /bin/sh; the event is in the environment, never in the line."""
    on: tuple[HookEvent, ...] = ("detection",)
    """Events that start it; all but `detection` are events of `kws daemon` only."""
    timeout_s: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 30.0
    """After this the command and all its descendants are killed."""
    max_running: Annotated[int, Meta(ge=1, le=64)] = 4
    """Processes of this hook at once."""
    max_queued: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """Events that may wait for one to end; an event beyond that is dropped and logged."""
    cooldown_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 0.0
    """Time after an event in which the next of the same keyword or state is ignored."""
    mute: bool = False
    """True mutes the daemon while the hook runs or waits."""
    mute_after_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 0.0
    """With `mute`: how much longer the daemon stays muted, for example for an echo."""
    awake_wav: str | None = None
    """A sound file played when the hook starts, by pw-play, paplay or aplay."""
    working_directory: str | None = None
    """Working directory; None: that of kws."""
    user: str | None = None
    """User to run as; kws must run as root."""
    environment: dict[str, str] = {}
    """Variables added to those of kws; those of the event override them."""
    keyword_on_stdin: bool = False
    """True writes the keyword to standard input, as wyoming-satellite does, instead of JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        force_setattr(self, "keyword", nfc(self.keyword))
        if self.shell or not isinstance(self.command, str):
            return
        if found := shell_operator(self.command):
            raise HookError(
                f"A hook's `command` is run by a shell only with `shell = true`. Received: "
                f"`{found}` in `{self.command}`. Set `shell = true`, or quote the `{found}`."
            )


class RecordingSettings(Table, frozen=True, kw_only=True):
    """`[recording]`: audio clips that `kws daemon` keeps around detections."""

    folder: str | None = None
    """Folder of the clips; None: no recording."""
    format: Literal["wav", "flac"] = "wav"
    """File format; 16 bits either way."""
    pre_roll_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 1.0
    """Audio before the keyword."""
    post_roll_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 0.5
    """Audio after the keyword."""
    min_score: Probability | None = None
    """Least score of near misses to record; None: none are recorded."""
    max_clips: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Most clips; the oldest are removed."""
    max_days: Annotated[float, Meta(gt=0.0, le=36_500.0)] = 30.0
    """Greatest age; older clips are removed."""
    max_mb: Annotated[float, Meta(gt=0.0, le=1_000_000.0)] = 500.0
    """Most million bytes; the oldest clips are removed."""


class DaemonSettings(Table, frozen=True, kw_only=True):
    """`[daemon]`: queues, socket, metrics and logs of `kws daemon`."""

    backlog_s: Annotated[float, Meta(ge=1.0, le=600.0)] = 10.0
    """Audio of each source that may wait for processing; beyond that the oldest is dropped."""
    socket: Annotated[str, Meta(min_length=1)] | None = None
    """Path of the socket for `kws status`; None: kws.sock in the runtime directory."""
    metrics_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    """Port on 127.0.0.1 for Prometheus metrics; None: off."""
    log_format: Literal["text", "json"] = "text"
    """Format of the logs on standard error: plain lines or JSON lines."""
