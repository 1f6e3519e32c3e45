"""Voices of command-line programs: flite (BSD-like) and espeak-ng (GPL). Small, fast, robotic.

A fallback: a model trained on them alone misses more words of people.
"""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kws.arrays import Samples
from kws.errors import ConfigError
from kws_train.data.audio_files import read_samples
from kws_train.synth.voices.engine import Line, normalize_peak, pitch_ratio

__all__ = ["Espeak", "Flite"]

_TIMEOUT_S = 30
_WAV_HEADER = 46  # bytes
_ENGLISH = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan")
_VARIANTS = tuple(f"{sex}{i}" for sex, n in (("m", 8), ("f", 5)) for i in range(1, n + 1))
_FLITE_HELD_OUT = "rms"
_FLITE_HZ = {"kal": 105, "kal16": 105, "awb": 125, "rms": 100, "slt": 175}


class Espeak:
    """espeak-ng: over a hundred languages. A voice is named `language+variant`.

    Parameters
    ----------
    language : str
        As espeak-ng names it; `en` stands for six of its English accents.
    held_out : bool
        True: use the variants m8 and f5 only; False: all others.

    Raises
    ------
    ConfigError
        If it is not installed, or does not know the language.
    """

    name = "espeak-ng"

    def __init__(self, *, language: str = "en", held_out: bool = False) -> None:
        _require(self.name)
        self.version = _version(self.name)
        self._accents = _ENGLISH if language == "en" else (language,)
        if language != "en" and language not in _espeak_languages():
            raise ConfigError(
                f"espeak-ng must know the language. Received: {language}. "
                f"`espeak-ng --voices` lists those it knows."
            )
        self._variants = [one for one in _VARIANTS if (one in {"m8", "f5"}) == held_out]
        self.n_voices = len(self._accents) * len(self._variants)

    def draw_voice(self, random: np.random.Generator, /) -> str:
        """See `VoiceEngine`."""
        return f"{random.choice(self._accents)}+{random.choice(self._variants)}"

    def speak(self, line: Line, /) -> Samples:
        """See `VoiceEngine`."""
        pitch = int(np.clip(50 + 5 * line.semitones, 0, 99))
        options = ["-v", line.voice, f"-s{round(175 * line.speed)}", f"-p{pitch}"]
        return _run(lambda wav: ["espeak-ng", *options, "-w", wav, "--", line.text])


class Flite:
    """Flite: five English voices.

    Parameters
    ----------
    held_out : bool
        True: use the voice `rms` only; False: all others.

    Raises
    ------
    ConfigError
        If it is not installed.
    """

    name = "flite"

    def __init__(self, *, held_out: bool = False) -> None:
        _require(self.name)
        self.version = _version(self.name)
        self._voices = [one for one in _FLITE_HZ if (one == _FLITE_HELD_OUT) == held_out]
        self.n_voices = len(self._voices)

    def draw_voice(self, random: np.random.Generator, /) -> str:
        """See `VoiceEngine`."""
        return str(random.choice(self._voices))

    def speak(self, line: Line, /) -> Samples:
        """See `VoiceEngine`."""
        hz = _FLITE_HZ[line.voice] * pitch_ratio(line.semitones)
        options = ["-voice", line.voice, "--setf", f"duration_stretch={1 / line.speed:.3f}"]
        options += ["--setf", f"int_f0_target_mean={hz:.1f}"]
        return _run(lambda wav: ["flite", *options, "-t", line.text, "-o", wav])


def _run(command: Callable[[str], list[str]]) -> Samples:
    """Run a program that writes a WAV file; return its samples."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "line.wav"
        subprocess.run(command(str(wav)), check=True, capture_output=True, timeout=_TIMEOUT_S)
        has_samples = wav.is_file() and wav.stat().st_size > _WAV_HEADER
        return normalize_peak(read_samples(wav)) if has_samples else np.zeros(0, np.int16)


def _require(program: str) -> None:
    if not shutil.which(program):
        raise ConfigError(
            f"`{program}` has to be on the path. Received: it is not. "
            f"Run `sudo apt install {program}`."
        )


@functools.cache
def _version(program: str) -> str:
    """Return the first version number that the program prints."""
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"


@functools.cache
def _espeak_languages() -> Sequence[str]:
    done = subprocess.run(
        ["espeak-ng", "--voices"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
    )
    return [line.split()[1] for line in done.stdout.splitlines()[1:]]
