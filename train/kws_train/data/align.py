"""Word times for continuous speech, by pocketsphinx: forced alignment, or speech recognition.

Training needs word times in continuous speech: a detection of a keyword said there is no false
alarm, and real words can be cut out. Speech with transcripts, in LibriSpeech's layout, is aligned;
in other speech words are recognised, many of them wrongly. The result is a JSON-lines file, one
utterance a line:
``{"utterance": "84-121123-0000", "speaker": "84", "words": [["GO", 0.5, 0.82], ...]}``.
"""

import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import msgspec
import soundfile
from pocketsphinx import Decoder
from rich.console import Console
from rich.progress import track

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.audio_files import AUDIO_SUFFIXES
from kws.errors import ConfigError, FormatError
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.librispeech import speaker_halves, speaker_of_utterance, transcripts_below
from kws_train.data.speakers import speaker_of_file
from kws_train.parallel import Failure, JoblibBackend, map_corpus

__all__ = [
    "AlignSummary",
    "AlignedUtterance",
    "WordTimes",
    "align",
    "alignment_at_hand",
    "read_alignment",
    "utterance_name",
]

log = logging.getLogger("kws.align")

# Utterances per task: enough to pay for loading the acoustic model, and the language model.
_CHUNK, _RECOGNIZED_CHUNK = 64, 16
# Least log score per frame. In the first half of LibriSpeech dev-clean, correct transcripts scored
# -0.0018 and better; of 300 transcripts given to another utterance of equal length, one passed.
_MIN_SCORE = -0.002
_FRAMES_PER_S = 100
_LINE_START = b'{"utterance":"'

WordTimes: TypeAlias = tuple[tuple[str, float, float], ...]
"""Words as (word in capitals, start, end), in seconds."""


class AlignedUtterance(msgspec.Struct, frozen=True):
    """An aligned utterance and its words."""

    utterance: str
    """Its name in the transcripts; where words are recognised, its file as `utterance_name`."""
    speaker: str
    words: WordTimes


class AlignSummary(msgspec.Struct, frozen=True):
    """Utterances aligned, kept from an earlier run, and left out with the reason."""

    n_aligned: int
    n_kept: int
    left_out: dict[str, str]


def align(
    corpus: Path,
    out: Path,
    *,
    half: str = "all",
    recognize: bool = False,
    n_jobs: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> AlignSummary:
    """Align every utterance of a corpus that has a transcript, or recognise its words.

    Resumable: utterances that are in `out` already are skipped. Utterances with a word that the
    dictionary lacks, or with a transcript that does not match the audio, are left out; a single
    wrong or missing word in an otherwise right transcript is not detected.

    Parameters
    ----------
    corpus : Path
        LibriSpeech layout: `*.trans.txt` beside audio files, SPEAKERS.TXT above; with `recognize`
        any folder of audio files, one folder for each speaker or else one speaker a file.
    out : Path
        The JSON-lines file to create or to append to.
    half : "first", "second" or "all"
        Which speakers, in the order of SPEAKERS.TXT; those of `recognize` are all.
    recognize : bool
        Recognise the words of every file, by pocketsphinx's general model of US English.
    n_jobs : int
        Processes.
    scheduler : str, optional
        Address of a Dask cluster to use instead; its workers must see `corpus` at this path.
    progress : bool
        Whether to draw a progress bar on standard error.

    Raises
    ------
    ConfigError
        If there is no transcript below `corpus`, no speaker in the half of it, or if `out` cannot
        be written or holds something else.
    """
    utterances = _recordings(corpus) if recognize else _transcripts(corpus, half)
    run_chunk = _recognize_chunk if recognize else _align_chunk
    done = set(read_alignment(out)) if out.is_file() else set()
    todo = [one for one in utterances if one.name not in done]
    size = _RECOGNIZED_CHUNK if recognize else _CHUNK
    chunks = [todo[i : i + size] for i in range(0, len(todo), size)]
    left_out: dict[str, str] = {}
    n_aligned = 0
    with _open_to_append(out) as lines:
        backend: JoblibBackend = "dask" if scheduler else "loky"
        work = map_corpus(run_chunk, chunks, n_jobs=n_jobs, backend=backend, scheduler=scheduler)
        console = Console(stderr=True)
        for chunk in track(work, "Aligning", len(chunks), disable=not progress, console=console):
            for name, result in _results_of(chunk):
                if isinstance(result, str):
                    left_out[name] = result
                    log.warning("left out, %s: %s", result, name)
                    continue
                lines.write(msgspec.json.encode(result) + b"\n")
                n_aligned += 1
            lines.flush()
    return AlignSummary(n_aligned, len(utterances) - len(todo), left_out)


def alignment_at_hand(corpus: Path, path: Path, *, half: str) -> dict[str, AlignedUtterance]:
    """Return the utterances of an alignment; where there is none, align the corpus first.

    Of all speakers' speech without transcripts, words are recognised. An interrupted alignment is
    continued by the next call; nothing reads it before it is whole.

    Parameters
    ----------
    corpus, path : Path
        The corpus, and its alignment.
    half : "first", "second" or "all"
        Which speakers to align.

    Raises
    ------
    ConfigError
        If the alignment can be neither read nor made.
    """
    if not path.is_file():
        recognize = half == "all" and not any(transcripts_below(corpus))
        how = ["--recognize"] if recognize else []
        command = " ".join(["kws align", str(corpus), str(path), *how])
        log.warning("no word times yet, they are found once: %s", command)
        unfinished = path.with_name(f"{path.name}.unfinished")
        summary = align(
            corpus,
            unfinished,
            half=half,
            recognize=recognize,
            n_jobs=-1,
            progress=sys.stderr.isatty(),
        )
        if not summary.n_aligned + summary.n_kept:
            raise ConfigError(
                f"An alignment must have an utterance. Received: {len(summary.left_out)} in "
                f"{corpus}, all left out, see above. Check its transcripts and audio."
            )
        unfinished.replace(path)
    return read_alignment(path)


def read_alignment(path: Path) -> dict[str, AlignedUtterance]:
    """Return the utterances of an alignment by name; an incomplete last line is ignored.

    Raises
    ------
    ConfigError
        If the file is missing, or a line is not an aligned utterance.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConfigError(
            f"An alignment must be a readable file. Received: {path} ({error.strerror}). "
            f"Create it with `kws align CORPUS {path}`."
        ) from error
    whole = [line for line in lines if line.endswith(b"\n")]
    try:
        utterances = [msgspec.json.decode(line, type=AlignedUtterance) for line in whole]
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"An alignment must hold one utterance a line. Received: {error} in {path}. "
            f"Delete the file and create it again with `kws align`."
        ) from error
    return {utterance.utterance: utterance for utterance in utterances}


def utterance_name(path: Path, corpus: Path) -> str:
    """Return the name of an utterance without transcript: its file below the corpus, no suffix."""
    return path.relative_to(corpus).with_suffix("").as_posix()


class _Utterance(NamedTuple):
    """What is to be aligned."""

    name: str
    speaker: str
    path: Path
    text: str = ""
    """Its transcript, if there is one."""


def _transcripts(corpus: Path, half: str) -> list[_Utterance]:
    """Return the utterances that have a transcript, in the order of names."""
    lines = list(transcripts_below(corpus))
    if not lines:
        raise ConfigError(
            f"A speech corpus must hold *.trans.txt files with audio beside them. Received: "
            f"{corpus} with none. Give a folder in LibriSpeech's layout, or have the words "
            f"recognised: `--recognize`."
        )
    first, second = speaker_halves(corpus)
    wanted = {"first": first, "second": second, "all": first | second}[half]
    if not wanted:
        raise ConfigError(
            f"A half must have a speaker in it. Received: the {half} half of {corpus}, which has "
            f"{len(first | second)} in all. Align them with `--half all`."
        )
    return [
        _Utterance(name, speaker_of_utterance(name), _audio_of(path.with_name(name)), text)
        for path, name, text in lines
        if speaker_of_utterance(path.name) in wanted
    ]


def _recordings(corpus: Path) -> list[_Utterance]:
    """Return all audio files as utterances without a transcript, in the order of names."""
    return [
        _Utterance(utterance_name(path, corpus), speaker_of_file(path, corpus), path)
        for path in audio_files(corpus)
    ]


def _audio_of(stem: Path) -> Path:
    """Return the audio file beside a transcript, or a path without suffix that does not exist."""
    paths = (stem.with_name(stem.name + suffix) for suffix in AUDIO_SUFFIXES)
    return next((path for path in paths if path.is_file()), stem)


def _align_chunk(utterances: list[_Utterance]) -> list[tuple[str, AlignedUtterance | str]]:
    # The search over the word lattice, `bestpath`, tends to add a pause to the word before it; so
    # does a small probability of silence.
    decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False, silprob=0.2)
    return [(one.name, _align_one(decoder, one)) for one in utterances]


def _recognize_chunk(utterances: list[_Utterance]) -> list[tuple[str, AlignedUtterance | str]]:
    decoder = Decoder(loglevel="FATAL")
    return [(one.name, _recognize_one(decoder, one)) for one in utterances]


def _results_of(
    chunk: list[tuple[str, AlignedUtterance | str]] | Failure[list[_Utterance]],
) -> list[tuple[str, AlignedUtterance | str]]:
    """Return the results of a chunk; where it failed as a whole, each utterance has its reason."""
    if isinstance(chunk, Failure):
        return [(one.name, chunk.reason) for one in chunk.item]
    return chunk


def _align_one(decoder: Decoder, utterance: _Utterance) -> AlignedUtterance | str:
    """Return the aligned utterance, or the reason to leave it out."""
    words = utterance.text.lower().split()
    if not words:
        return "no words in its transcript"
    if unknown := [word for word in words if decoder.lookup_word(word) is None]:
        return f"not in the dictionary: {', '.join(unknown)}"
    samples = _samples_of(utterance.path)
    if isinstance(samples, str):
        return samples
    # Otherwise the noise estimate of one utterance would shift the words of the next.
    decoder.reinit_feat()
    decoder.set_align_text(" ".join(words))
    spoken = _decode(decoder, samples)
    least = math.exp(_MIN_SCORE * _FRAMES_PER_S * len(samples) / RATE_HZ)
    if [word.lower() for word, _, _ in spoken] != words or decoder.hyp().score < least:
        return "audio and transcript do not match"
    return AlignedUtterance(utterance.name, utterance.speaker, spoken)


def _recognize_one(decoder: Decoder, utterance: _Utterance) -> AlignedUtterance | str:
    """Return an utterance with the words that were recognised in it, or the reason to leave it."""
    try:
        samples = read_samples(utterance.path)
    except FormatError as error:
        return str(error)
    decoder.reinit_feat()
    return AlignedUtterance(utterance.name, utterance.speaker, _decode(decoder, samples))


def _decode(decoder: Decoder, samples: Samples) -> WordTimes:
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    return tuple(_spoken(decoder))


def _samples_of(path: Path) -> Samples | str:
    if not path.is_file():
        return "no audio beside its transcript"
    # Not `read_samples`: `_MIN_SCORE` was not measured on resampled or mixed-down audio.
    try:
        samples, rate_hz = soundfile.read(path, dtype="int16")
    except (OSError, soundfile.SoundFileError) as error:
        return f"not readable ({error})"
    if rate_hz != RATE_HZ or samples.ndim != 1 or not len(samples):
        return "not 16 kHz mono, or empty"
    return samples


def _spoken(decoder: Decoder) -> Iterator[tuple[str, float, float]]:
    """Yield the aligned words; a segment's end is its last frame, inclusive."""
    for segment in decoder.seg() or ():
        word = segment.word.partition("(")[0]
        if not word.startswith(("<", "[")):
            yield (
                word.upper(),
                segment.start_frame / _FRAMES_PER_S,
                (segment.end_frame + 1) / _FRAMES_PER_S,
            )


def _open_to_append(path: Path) -> BinaryIO:
    """Open to append; cut off an incomplete last line of an interrupted run."""
    try:
        lines = path.open("ab+")
    except OSError as error:
        raise ConfigError(
            f"An alignment must go to a file that can be written. Received: {path} "
            f"({error.strerror}). Create its folder, or give another path."
        ) from error
    lines.seek(0)
    whole, newline, torn = lines.read().rpartition(b"\n")
    if not torn.startswith(_LINE_START[: len(torn)]):
        lines.close()
        raise ConfigError(
            f"An alignment must hold one utterance a line. Received: {path}, whose last line is "
            f"something else. Give another path."
        )
    lines.truncate(len(whole + newline))
    return lines
