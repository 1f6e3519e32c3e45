"""Playback of clips by an external program, while the labeller waits for keys."""

import contextlib
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import soundfile

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError, FormatError
from kws.sinks.hook_command import find_player
from kws_train.data.audio_files import read_samples

__all__ = ["ClipPlayer", "player_command"]

_START_TIMEOUT_S = 0.25  # errors within it are reported with the clip
_STOP_TIMEOUT_S = 1.0
_MAX_ERROR_CHARACTERS = 200


class ClipPlayer:
    """Plays clips by an external program, one at a time, in the background.

    Parameters
    ----------
    words : sequence of str
        The program and its options; the path of a WAV file is appended.
    folder : Path
        For the WAV file: not every player supports FLAC.
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self._words, self._wav = list(words), folder / "clip.wav"
        self._errors = folder / "errors"
        self._process: subprocess.Popen[bytes] | None = None

    def play(self, clip: Path) -> str:
        """Start to play a clip; return an error message, empty if there is no error."""
        self.stop()
        try:
            soundfile.write(self._wav, read_samples(clip), RATE_HZ, subtype="PCM_16")
        except FormatError as error:
            return str(error)
        try:
            with self._errors.open("wb") as errors:
                self._process = subprocess.Popen(
                    [*self._words, str(self._wav)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
        except OSError as error:
            return f"{self._words[0]} cannot be run: {error.strerror}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_START_TIMEOUT_S)
        return self._problem()

    def stop(self) -> None:
        """Stop playing."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def _problem(self) -> str:
        if not self._process or not self._process.poll():
            return ""
        stderr = " ".join(self._errors.read_text(errors="replace").split())[:_MAX_ERROR_CHARACTERS]
        return f"{self._words[0]} ended with {self._process.returncode}: {stderr}"


def player_command(command: str | None) -> list[str]:
    """Return the program that plays clips and its options.

    Raises
    ------
    ConfigError
        If none is named or found, or the command is empty or has unbalanced quotes.
    """
    try:
        words = shlex.split(command) if command is not None else find_player()
    except ValueError as error:
        raise ConfigError(
            f"`--player` must have its quotes in pairs. Received: `{command}` ({error}). "
            f"Close them."
        ) from error
    if not words:
        received = "an empty --player" if command is not None else "none of pw-play, paplay, aplay"
        raise ConfigError(
            f"Labelling needs a program that plays sounds. Received: {received}. Run `sudo apt "
            f"install alsa-utils`, or name another, such as --player 'ffplay -nodisp -autoexit'; "
            f"`--no-label` skips labelling."
        )
    return words
