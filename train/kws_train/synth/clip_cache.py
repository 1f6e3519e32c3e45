"""Cache of synthetic clips, by a digest of all that a clip's sound depends on."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import soundfile

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import KwsError
from kws_train.atomic import replacing
from kws_train.data.audio_files import read_samples
from kws_train.synth.clip_checks import Transcriber, trim_silence
from kws_train.synth.voices.engine import Line, VoiceEngine

__all__ = ["SpeechError", "render", "transcript"]

_FORMAT = 1  # to be raised whenever the cached sound of a line changes


class SpeechError(KwsError):
    """An engine failed to synthesise a line."""


def render(line: Line, engine: VoiceEngine, *, cache: Path) -> tuple[Path, bool]:
    """Return the clip of a line from the cache; synthesise it first if it is not there.

    Parameters
    ----------
    line : Line
    engine : VoiceEngine
    cache : Path

    Returns
    -------
    path : Path
        A FLAC file with silence trimmed; its name is the digest of engine, version and line.
    is_new : bool
        Whether it was synthesised.

    Raises
    ------
    SpeechError
        If the engine fails.
    """
    content = msgspec.json.encode((_FORMAT, engine.name, engine.version, line))
    digest = hashlib.sha256(content).hexdigest()[:40]
    path = cache / digest[:2] / f"{digest}.flac"
    if path.is_file():
        return path, False
    samples = trim_silence(_speak(line, engine))
    if not len(samples):
        samples = np.zeros(1, np.int16)  # a FLAC file without samples cannot be read
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as begun:
        soundfile.write(begun, samples, RATE_HZ)
    return path, True


def transcript(clip: Path, transcriber: Transcriber) -> str:
    """Return the transcript of a cached clip; transcribe it at the first call and keep the text."""
    path = clip.with_suffix(f".{transcriber.name}.txt")
    if not path.is_file():
        with replacing(path) as begun:
            begun.write_text(transcriber.transcribe(read_samples(clip)), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _speak(line: Line, engine: VoiceEngine) -> Samples:
    try:
        return engine.speak(line)
    except Exception as error:  # engines' libraries have exceptions of their own
        raise SpeechError(f"{engine.name} failed to speak `{line.text}`: {error!r}") from error
