"""Speakers and transcripts of corpora in LibriSpeech's layout.

`*.trans.txt` files beside the audio hold one utterance a line; SPEAKERS.TXT above lists speakers.
Panayotov et al. 2015, "LibriSpeech: an ASR corpus based on public domain audio books".
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from kws.audio_files import AUDIO_SUFFIXES
from kws.names import nfc

__all__ = [
    "quiet_utterances",
    "speaker_halves",
    "speaker_of_utterance",
    "speakers_table",
    "transcripts_below",
]


def transcripts_below(corpus: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield (transcript file, utterance, text) of every line, in the order of files and lines."""
    for path in sorted(corpus.rglob("*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if words := line.split(maxsplit=1):
                yield path, words[0], words[1] if len(words) > 1 else ""


def speaker_of_utterance(name: str) -> str:
    """Return the speaker of an utterance or of its file: `84` of `84-121123-0000.flac`."""
    return name.partition("-")[0]


def speaker_halves(corpus: Path) -> tuple[set[str], set[str]]:
    """Return the first and the second half of the speakers present, in the order of SPEAKERS.TXT.

    The second half is for final figures: nothing trains, tunes or calibrates on it.
    """
    present = {speaker_of_utterance(path.name) for path in corpus.rglob("*.trans.txt")}
    listed = [
        speaker
        for path in sorted(corpus.rglob("SPEAKERS.TXT"))
        for speaker in speakers_table(path.parent)
    ]
    # A speaker listed twice must not land in both halves.
    order = list(dict.fromkeys(name for name in [*listed, *sorted(present)] if name in present))
    return set(order[: len(order) // 2]), set(order[len(order) // 2 :])


def speakers_table(folder: Path) -> dict[str, list[str]]:
    """Return the columns of SPEAKERS.TXT in a folder by speaker, in file order; sex comes first.

    Empty where there is no such file.
    """
    path = folder / "SPEAKERS.TXT"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = ([cell.strip() for cell in line.split("|")] for line in lines if line[:1] != ";")
    return {speaker: rest for speaker, *rest in rows}


def quiet_utterances(
    corpus: Path, *, without: Sequence[str], speakers: set[str] | None = None
) -> list[Path]:
    """Return the audio files of utterances whose transcripts contain none of the phrases.

    Parameters
    ----------
    corpus : Path
    without : sequence of str
        Words, and phrases such as `hey_computer`.
    speakers : set of str, optional
        Only theirs.
    """
    avoided = [f" {nfc(phrase).replace('_', ' ').upper()} " for phrase in without]
    found: list[Path] = []
    for transcript, name, text in transcripts_below(corpus):
        if speakers is not None and speaker_of_utterance(name) not in speakers:
            continue
        said = f" {' '.join(nfc(text).split())} "
        if not any(phrase in said for phrase in avoided):
            audio = transcript.parent.glob(f"{name}.*")
            found += [path for path in audio if path.suffix.lower() in AUDIO_SUFFIXES]
    return found
