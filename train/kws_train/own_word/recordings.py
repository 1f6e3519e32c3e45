"""Recordings of the phrases, cut into clips and split into training, validation and test."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import soundfile

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.commands.record import TakeCutter, loudest_dbfs
from kws.errors import ConfigError, FormatError
from kws.names import nfc
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.speech_span import speech_span
from kws_train.synth.clip_checks import find_defect, trim_silence

__all__ = ["SPLITS", "ImportedRecordings", "import_recordings"]

SPLITS = ("train", "validation", "test")
"""The splits of recordings."""

_MIN_PEAK_DBFS = -55.0  # of the loudest 20 ms; below it is microphone noise
_MARGIN_S = 0.25
_MAX_CLIP_S = 4.0  # longer recordings are searched for takes
_MIN_RECORDINGS_TO_SPLIT = 10
_MIN_SPEAKERS_TO_SPLIT = 3
_TEST_SHARE, _VALIDATION_SHARE = 0.2, 0.1


class ImportedRecordings(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the imported recordings of a phrase.

    Attributes
    ----------
    n : dict of str to int
        Clips by split: `train`, `validation`, `test`.
    left_out : dict of str to str
        Unusable files, and why.
    n_narrow : int
        Recordings sampled at less than 16 kHz.
    """

    n: dict[str, int]
    left_out: dict[str, str]
    n_narrow: int

    def describe(self) -> str:
        """Return a summary in one line."""
        counts = ", ".join(f"{n} for {split}" for split, n in self.n.items() if n)
        left_out = f"; {len(self.left_out)} unusable" if self.left_out else ""
        narrow = f"; {self.n_narrow} of less than 16 kHz" if self.n_narrow else ""
        return f"{counts or 'none usable'}{left_out}{narrow}"


def import_recordings(
    folder: Path, out: Path, *, label: str, splits: Sequence[str] = SPLITS
) -> ImportedRecordings:
    """Cut recordings of a phrase into clips `out/split/label/name_nohash_n.flac`.

    Recordings longer than four seconds are cut into takes by voice activity. A folder below that
    of the recordings is a speaker: with three speakers or more, each is in one split. Else
    recordings with neighbouring names are assumed to be of one speaker, so that splits are ranges
    of names: of ten recordings or more, the last fifth is for testing and the tenth before it for
    validation.

    Parameters
    ----------
    folder : Path
        Holds recordings, or a folder named `label` that does.
    out : Path
    label : str
    splits : sequence of str
        The splits to make; with `test` only, all recordings are for testing.

    Raises
    ------
    ConfigError
        If there is no recording, or none with speech.
    """
    done = out / f"{label}.{'-'.join(splits)}.json"
    if done.is_file():
        return msgspec.json.decode(done.read_bytes(), type=ImportedRecordings)
    root = next((one for one in sorted(folder.glob("*/")) if nfc(one.name) == label), folder)
    paths = audio_files(root)
    left_out: dict[str, str] = {}
    takes: list[tuple[str, list[Samples]]] = []
    speakers: list[str] = []
    n_narrow = 0
    for path in paths:
        try:
            found = list(_takes(read_samples(path), text=label))
            n_narrow += _is_narrow(path)
        except FormatError as error:
            left_out[str(path)] = str(error)
            continue
        if not found:
            left_out[str(path)] = f"A recording must hold the phrase. Received: no voice in {path}."
            continue
        inside = path.relative_to(root).with_suffix("").parts if path != root else (path.stem,)
        takes.append(("-".join(inside), found))
        speakers.append(inside[0] if len(inside) > 1 else "")
    if not takes:
        reason = next(iter(left_out.values()))
        raise ConfigError(
            f"Recordings must hold the phrase `{label}`, spoken. Received: {len(paths)} files in "
            f"{folder}, none of them usable. The first: {reason} Record it: `kws record {label}`."
        )
    counts = _write_clips(takes, _assign_splits(speakers, splits), out, label=label)
    imported = ImportedRecordings(n=counts, left_out=left_out, n_narrow=n_narrow)
    done.write_bytes(msgspec.json.encode(imported))
    return imported


def _write_clips(
    takes: Sequence[tuple[str, Sequence[Samples]]], splits: Sequence[str], out: Path, *, label: str
) -> dict[str, int]:
    counts = dict.fromkeys(SPLITS, 0)
    for split, (name, clips) in zip(splits, takes, strict=True):
        for i, samples in enumerate(clips):
            path = out / split / label / f"{name.replace('_nohash_', '-')}_nohash_{i}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, RATE_HZ)
            counts[split] += 1
    return counts


def _takes(samples: Samples, *, text: str) -> Iterator[Samples]:
    """Give the segments of a recording that may hold the phrase."""
    if len(samples) <= _MAX_CLIP_S * RATE_HZ:
        candidates = [_trim(samples, text=text)]
    else:
        takes = TakeCutter()
        found = (*takes.process(samples), *takes.flush())
        candidates = [trim_silence(take.samples) for take in found]
    for clip in candidates:
        if find_defect(clip, text=text) is None and loudest_dbfs(clip) > _MIN_PEAK_DBFS:
            yield clip


def _is_narrow(path: Path) -> bool:
    """Return whether a recording is sampled at less than 16 kHz; False where only ffmpeg knows."""
    try:
        return bool(soundfile.info(path).samplerate < RATE_HZ)
    except soundfile.SoundFileError:
        return False


def _trim(samples: Samples, *, text: str) -> Samples:
    """Cut a short recording to its speech, with a margin of its background."""
    start, end = speech_span(samples, said=text)
    margin = round(_MARGIN_S * RATE_HZ)
    return samples[max(0, start - margin) : end + margin]


def _assign_splits(speakers: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Return the splits of recordings in order; fewer than ten are all for training."""
    n = len(speakers)
    if list(splits) == ["test"]:
        return ["test"] * n
    is_split = n >= _MIN_RECORDINGS_TO_SPLIT
    n_test = round(_TEST_SHARE * n) if is_split and "test" in splits else 0
    n_validation = max(1, round(_VALIDATION_SHARE * n)) if is_split else 0
    if is_split and "" not in speakers and len(set(speakers)) >= _MIN_SPEAKERS_TO_SPLIT:
        whole = _whole_speakers(speakers, n_test)
        whole_validation = _whole_speakers(speakers[: n - whole], n_validation)
        if whole + whole_validation < n:
            n_test, n_validation = whole, whole_validation
    n_train = n - n_test - n_validation
    return ["train"] * n_train + ["validation"] * n_validation + ["test"] * n_test


def _whole_speakers(speakers: Sequence[str], n_least: int) -> int:
    """Return the number of recordings of the last speakers, with `n_least` at least, if any."""
    if not n_least:
        return 0
    first = len(speakers) - n_least
    while first and speakers[first - 1] == speakers[first]:
        first -= 1
    return len(speakers) - first
