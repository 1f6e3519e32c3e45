"""Labelling by ear in a terminal: each candidate is played, one key labels it."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.text import Text

from kws.manifest import UNKNOWN
from kws.mined.folder import UNSURE, Candidate, MinedFolder
from kws.mined.label_log import LabelLog
from kws_train.mining.clip_player import ClipPlayer

__all__ = ["label_candidates", "read_keys"]

_DIGITS = "1234567890"


@contextlib.contextmanager
def read_keys(stream: TextIO) -> Iterator[Callable[[], str]]:
    """Give a function that waits for the next key; keys typed before the call are kept.

    Ctrl-C is kept, too, and raised by the next call. Raised at any time, it could occur where
    Python ignores exceptions, such as in the finaliser of a player's process object.

    Parameters
    ----------
    stream : text stream
        Of a terminal; its settings are restored at the end.
    """
    import termios  # not on Windows, where `MinedFolder.open_label_log` says so
    import tty

    descriptor = stream.fileno()
    waits = is_interrupted = False

    def interrupt(signum: int, frame: object) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        if waits:
            raise KeyboardInterrupt

    def key() -> str:
        nonlocal waits
        waits = True
        try:
            if is_interrupted:
                raise KeyboardInterrupt
            if not (pressed := os.read(descriptor, 1)):
                raise EOFError
        finally:
            waits = False
        return pressed.decode("latin-1")

    before, handler = termios.tcgetattr(descriptor), signal.signal(signal.SIGINT, interrupt)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        signal.signal(signal.SIGINT, handler)


def label_candidates(
    folder: MinedFolder,
    *,
    player: Sequence[str],
    console: Console,
    key: Callable[[], str],
) -> int:
    """Present unlabelled candidates until all are labelled, or `q`, Ctrl-C or Ctrl-D is pressed.

    Each label is written to disk before the next candidate is shown.

    Parameters
    ----------
    folder : MinedFolder
    player : sequence of str
        See `player_command`.
    console : Console
    key : callable
        Waits for a key and returns it, see `read_keys`.

    Returns
    -------
    int
        Candidates without a label.
    """
    with (
        folder.open_label_log() as labels,
        tempfile.TemporaryDirectory(prefix="kws-mine-") as temporary,
        Live(console=console, auto_refresh=False, transient=True) as live,
    ):
        speaker = ClipPlayer(player, Path(temporary))
        session = _Session(folder, speaker, labels)
        try:
            while session.is_running:
                live.update(session.screen(), refresh=True)
                if session.play():
                    live.update(session.screen(), refresh=True)
                session.press(key())
        except (KeyboardInterrupt, EOFError):
            pass
        finally:
            speaker.stop()
        return session.n_left


class _Session:
    """State of the labelling: the current candidate and the labels given."""

    def __init__(self, folder: MinedFolder, player: ClipPlayer, log: LabelLog) -> None:
        labels = folder.labels()
        self._folder, self._player, self._log = folder, player, log
        self._keywords = dict(zip(_DIGITS, folder.keywords(), strict=False))
        self._todo = [one for one in folder.candidates() if one.id not in labels]
        self._given: list[str] = []
        self._retracted = self._problem = ""
        self._ended, self._is_new = False, True

    @property
    def n_left(self) -> int:
        return len(self._todo) - len(self._given)

    @property
    def is_running(self) -> bool:
        return self.n_left > 0 and not self._ended

    def press(self, key: str) -> None:
        """Handle a key; unknown keys are ignored."""
        labels = {"y": self._current.keyword, "n": UNKNOWN, "u": UNSURE, **self._keywords}
        if key in labels:
            self._log.append(self._current.id, labels[key])
            self._given.append(labels[key])
            self._retracted = self._problem = ""
        elif key == "b" and self._given:
            self._retracted = self._given.pop()
            self._log.append(self._current.id, None)
        elif key != " ":
            self._ended = key in {"q", "\x04"}
            return
        self._is_new = True

    def play(self) -> str:
        """Play the clip of a new candidate, or again on request; return an error message."""
        if self._is_new:
            self._is_new = False
            self._problem = self._player.play(self._folder.path / self._current.clip)
        return self._problem

    def screen(self) -> Group:
        """Return the view of the current candidate."""
        one = self._current
        what = f"  {one.kind.replace('_', ' ')}, {one.score:.2f}"
        where = f"{Path(one.source).name}, {_clock(one.end_s)}"
        lines = [
            Text.assemble((f"{one.keyword}?", "bold"), what),
            Text(where, style="dim", overflow="ellipsis", no_wrap=True),
        ]
        if self._retracted:
            lines.append(Text(f"Retracted: {_label_name(self._retracted)}", style="yellow"))
        if self._problem:
            lines.append(Text(f"Not played: {self._problem}", style="red"))
        bar = ProgressBar(total=len(self._todo), completed=len(self._given))
        title = f"{len(self._given) + 1} of {len(self._todo)}"
        return Group(Panel(Group(*lines, bar), title=title, title_align="left"), self._keys())

    @property
    def _current(self) -> Candidate:
        return self._todo[len(self._given)]

    def _keys(self) -> Text:
        keys = {"space": "play", "y": self._current.keyword, "n": "no keyword in it"}
        if len(self._keywords) > 1:
            keys |= self._keywords
        keys |= {"u": "unsure", "b": "back", "q": "quit"}
        text = Text()
        for name, what in keys.items():
            text.append(f" {name} ", style="reverse").append(f" {what}  ")
        return text


def _label_name(label: str) -> str:
    return {UNKNOWN: "no keyword", UNSURE: "unsure"}.get(label, label)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
