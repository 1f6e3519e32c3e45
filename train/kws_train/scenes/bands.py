"""A corpus as bands of power, computed once and kept on disk, for scenes that need no audio.

Powers of sounds add up where the sounds do, apart from their phases. So a scene can be added up of
frames: no Fourier transform is left in training. Each frame has the bands of the features, as
`kws.features.Features.bands` gives them, and the mean square of its samples as one more column,
which levels are set by. Values are natural logarithms, float16.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import msgspec
import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.errors import ConfigError
from kws.features import Features
from kws.manifest import FeatureSettings
from kws_train.cache_folder import cache_folder, kept_file
from kws_train.data.corpus import Clip, Corpus, Spoken
from kws_train.data.speech_span import Span, speech_span

__all__ = ["LogBands", "corpus_in_bands", "mined_in_bands"]

LogBands: TypeAlias = npt.NDArray[np.float16]
"""Natural logarithms of powers [shape=(frames, bands + 1)]."""

log = logging.getLogger("kws.data")

_FORMAT = 1  # to be raised whenever the bands of the same audio change
_LEAST = 1e-4
_CEPSTRAL = {"n_mfcc": 13, "dct": "orthonormal", "lifter": 22, "floor": 1.0}


def corpus_in_bands(
    corpus: Corpus, settings: FeatureSettings, *, folder: Path | None = None
) -> Corpus:
    """Return a corpus with bands in place of samples, and frames in place of sample indices.

    Parameters
    ----------
    corpus : Corpus
    settings : FeatureSettings
        Of power; recipes are checked for that.
    folder : Path, optional
        Where bands are kept; by default in the user's cache.

    Raises
    ------
    ConfigError
        If the file that is kept for this corpus holds something else, or cannot be written.
    """
    signals = [
        *(clip.samples for clips in corpus.clips.values() for clip in clips),
        *(spoken.samples for spoken in corpus.speech),
        *corpus.noise,
    ]
    made = iter(_kept(signals, settings, folder or cache_folder("bands")))
    hop = settings.hop_samples
    clips = {
        label: [_clip_in_bands(clip, next(made), hop) for clip in clips]
        for label, clips in corpus.clips.items()
    }
    speech = [_spoken_in_bands(spoken, next(made), hop) for spoken in corpus.speech]
    noise: list[Any] = [next(made) for _ in corpus.noise]
    return replace(corpus, clips=clips, speech=speech, noise=noise)


def mined_in_bands(
    mined: Sequence[tuple[Spoken, int]], in_bands: Corpus, *, hop_samples: int
) -> list[tuple[Spoken, int]]:
    """Return hard negatives, a recording and a sample each, of a corpus in bands."""
    by_path = {one.path: one for one in (*in_bands.wordless(), *in_bands.speech)}
    return [(by_path[spoken.path], at // hop_samples) for spoken, at in mined]


def _clip_in_bands(clip: Clip, bands: LogBands, hop: int) -> Clip:
    span = clip.span or speech_span(clip.samples, said=clip.word)
    return replace(clip, samples=bands, span=_in_frames(span, hop))


def _spoken_in_bands(spoken: Spoken, bands: LogBands, hop: int) -> Spoken:
    words = tuple((word, *_in_frames((start, end), hop)) for word, start, end in spoken.words)
    return replace(spoken, samples=bands, words=words)


def _in_frames(span: Span, hop: int) -> Span:
    return round(span[0] / hop), round(span[1] / hop)


def _kept(signals: Sequence[Samples], settings: FeatureSettings, folder: Path) -> list[LogBands]:
    """Return the bands of each signal, from the file kept for all of them or computed now."""
    # Cepstra are made of bands later.
    about = {"format": _FORMAT, "features": msgspec.to_builtins(settings) | _CEPSTRAL}
    about["signals"] = _digest(signals)
    header = msgspec.json.encode(about).decode()
    path = folder / f"{hashlib.sha256(header.encode()).hexdigest()[:40]}.npz"
    lengths, bands = _read(path, header) or _write(path, header, signals, settings)
    return np.split(bands, np.cumsum(lengths)[:-1])


def _read(path: Path, header: str) -> tuple[npt.NDArray[np.int64], LogBands] | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if str(kept["header"]) == header:
                return kept["lengths"], kept["bands"]
            received = "bands of other features or other files"
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        received = f"a damaged file ({error})"
    raise ConfigError(
        f"A file of kept bands must hold those of the recipe's features and data. Received: "
        f"{received}, in {path}. Remove it; it is made again."
    )


def _write(
    path: Path, header: str, signals: Sequence[Samples], settings: FeatureSettings
) -> tuple[npt.NDArray[np.int64], LogBands]:
    log.info("computing bands of %d recordings, once", len(signals))
    features = Features(settings)
    made = [_log_bands(features, signal) for signal in signals]
    lengths = np.array([len(one) for one in made])
    bands = np.concatenate(made)
    with kept_file(path, what="Bands") as file:
        np.savez(file, header=np.array(header), lengths=lengths, bands=bands)
    return lengths, bands


def _log_bands(features: Features, signal: Samples) -> LogBands:
    """Return the bands of a signal, which is continued by silence to a whole number of hops."""
    window, hop = features.settings.window_samples, features.settings.hop_samples
    n_frames = max(1, -(-len(signal) // hop))
    padded = np.zeros((n_frames - 1) * hop + window, np.float32)
    padded[: len(signal)] = signal[: len(padded)]
    total = np.concatenate(([0.0], np.cumsum(padded.astype(np.float64) ** 2)))
    starts = np.arange(n_frames) * hop
    power = (total[starts + window] - total[starts]) / window
    columns = np.hstack((features.bands(padded), power[:, None]))
    logs: LogBands = np.log(np.maximum(columns, _LEAST)).astype(np.float16)
    return logs


def _digest(signals: Iterable[Samples]) -> str:
    digest = hashlib.sha256()
    for signal in signals:
        digest.update(len(signal).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(signal).data)
    return digest.hexdigest()
