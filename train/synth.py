"""Words spoken by synthetic voices, for classes with few or no recordings.

One interface, `Backend`; Kokoro gives many speakers, blends of its voices among them, and espeak-ng
is there where nothing else is. Clips are named as in Speech Commands, the voices for a speaker.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import scipy.signal
import soundfile
from rich.console import Console
from rich.progress import track

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.features import Samples
from kws.train.data import read_samples
from kws.train.extras import load_library

__all__ = ["HELD_OUT", "Backend", "Espeak", "Kokoro", "synthesize"]

HELD_OUT = ("af_nova", "am_onyx", "bf_lily", "bm_fable")
"""Kokoro's voices that nothing is made with, so that tests may be."""

_KOKORO_RATE_HZ = 24_000
_MOST_BLENDED = 3
_ENGLISH_SHARE = 0.7
_PEAK = 20_000
_SECONDS = (0.1, 2.0)  # what is shorter or longer is no word


class Backend(Protocol):
    """Something that speaks."""

    def speak(self, text: str, random: np.random.Generator, /) -> tuple[Samples, str]:
        """Say a text in a random voice; return int16 samples at 16 kHz, and the voice's name."""
        ...


class Kokoro:
    """Kokoro-82M (Apache-2.0) by `kokoro-onnx`: voices, and blends of up to three of them.

    Parameters
    ----------
    model, voices : Path
        The ONNX model, and an .npz with a style (510, 1, 256) for each voice.
    without : sequence of str
        Voices to leave out.
    """

    def __init__(self, model: Path, voices: Path, *, without: tuple[str, ...] = HELD_OUT) -> None:
        kokoro = load_library("kokoro_onnx", purpose="`--kokoro`", package="kokoro-onnx")
        for path in (model, voices):
            if not path.is_file():
                raise ConfigError(
                    f"Kokoro needs its model and its voices. Received: {path}, which is no file. "
                    f"Give both, or leave `--kokoro` away for espeak-ng."
                )
        self._kokoro = kokoro.Kokoro(str(model), str(voices))
        self._styles = {
            name: self._kokoro.get_voice_style(name)
            for name in self._kokoro.get_voices()
            if name not in without
        }
        self._english = [name for name in self._styles if name[0] in "ab"]

    def speak(self, text: str, random: np.random.Generator, /) -> tuple[Samples, str]:
        """Say a text; see `Backend`."""
        pool = self._english if random.random() < _ENGLISH_SHARE else list(self._styles)
        names = list(random.choice(pool, int(random.integers(1, _MOST_BLENDED + 1)), replace=False))
        shares = random.dirichlet(np.ones(len(names)))
        style = sum(share * self._styles[name] for share, name in zip(shares, names, strict=True))
        wave, _ = self._kokoro.create(
            text,
            voice=np.asarray(style, np.float32),
            speed=float(random.uniform(0.75, 1.3)),
            lang="en-us" if random.random() < 0.75 else "en-gb",
        )
        wave = scipy.signal.resample_poly(wave, RATE_HZ, _KOKORO_RATE_HZ)
        return _levelled(wave), "-".join(name.replace("_", "") for name in names)


class Espeak:
    """espeak-ng (GPL, run as a program of its own): clear, robotic, always there.

    Raises
    ------
    ConfigError
        If it is not installed.
    """

    def __init__(self) -> None:
        if not shutil.which("espeak-ng"):
            raise ConfigError(
                "Synthesis needs a voice. Received: neither `--kokoro` nor espeak-ng. Run "
                "`sudo apt install espeak-ng`, or give Kokoro's model and voices."
            )

    def speak(self, text: str, random: np.random.Generator, /) -> tuple[Samples, str]:
        """Say a text; see `Backend`."""
        language = str(random.choice(["en-us", "en-gb", "en-gb-scotland", "en-029"]))
        variant = f"{random.choice(['m', 'f'])}{random.integers(1, 5)}"
        voice = f"{language}+{variant}"
        options = [f"-s{random.integers(120, 210)}", f"-p{random.integers(20, 80)}"]
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            command = ["espeak-ng", "-v", voice, *options, "-w", file.name, "--", text]
            subprocess.run(command, check=True, capture_output=True, timeout=30)
            samples = read_samples(Path(file.name))
        return _levelled(samples), voice.replace("-", "").replace("+", "")


def synthesize(words: Mapping[str, int], out: Path, backend: Backend, *, seed: int = 1) -> int:
    """Write clips of words to `out/word/voice_nohash_n.flac`; clips that are there are kept.

    Parameters
    ----------
    words : mapping of str to int
        How many clips of each word there are to be.
    out : Path
    backend : Backend
    seed : int
        Decides, with word and number, how a clip is said.

    Returns
    -------
    int
        Clips written; what came out empty or too long for a word is not.
    """
    wanted = [(word, i) for word, n in words.items() for i in range(n)]
    n_written = 0
    for word, i in track(wanted, "Speaking", console=Console(stderr=True)):
        folder = out / word
        if any(folder.glob(f"*_nohash_{i}.flac")):
            continue
        random = np.random.default_rng([seed, i, *word.encode()])
        text = str(random.choice([word, f"{word.capitalize()}.", f"{word}!", f"{word}?"]))
        samples, voice = backend.speak(text, random)
        if not _SECONDS[0] <= len(samples) / RATE_HZ <= _SECONDS[1] or not samples.any():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{voice}_nohash_{i}.flac", samples, RATE_HZ)
        n_written += 1
    return n_written


def _levelled(wave: np.ndarray[Any, Any]) -> Samples:
    """Bring the peak to one level, as int16."""
    peak = float(np.abs(wave.astype(np.float64)).max(initial=0.0))
    scaled = wave * (_PEAK / peak) if peak else wave
    return np.asarray(scaled, np.int16)
