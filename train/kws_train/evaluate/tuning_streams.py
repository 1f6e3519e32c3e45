"""Streams to calibrate on, of data that training left out.

Keyword clips of the validation split between sentences of training speakers that are not trained
on: data for tuning, so that the evaluation half of the speakers stays unseen.
"""

from collections.abc import Sequence
from pathlib import Path

from kws_train.data.align import read_alignment
from kws_train.data.audio_files import audio_matching
from kws_train.data.corpus import unaligned_utterances, words_by_utterance
from kws_train.data.librispeech import quiet_utterances, speaker_halves
from kws_train.data.speakers import TUNING
from kws_train.data.splits import is_validation
from kws_train.evaluate.build_stream import SnrRule, Stream, build_stream, keyword_clips
from kws_train.recipe import DataRecipe, SpeechCorpus

__all__ = ["tuning_streams"]


def tuning_streams(
    recipe: DataRecipe,
    root: Path,
    *,
    background: Sequence[Path] = (),
    snr_db: Sequence[float] = (float("inf"), 10.0),
    snr_rule: SnrRule = "mean",
    minutes: float | None = None,
    seed: int = 1,
) -> list[Stream]:
    """Build streams from the data that a recipe's training leaves out, except its evaluation half.

    Parameters
    ----------
    recipe : DataRecipe
        The training data.
    root : Path
        Folder that the recipe's paths are relative to.
    background : sequence of Path
        Further folders of speech in LibriSpeech's layout that training did not use.
    snr_db : sequence of float
        One stream each; infinity is a clean one. A repeated ratio draws different noise.
    snr_rule : "mean" or "peak"
        As `kws_train.evaluate.build_stream.build_stream` takes it.
    minutes : float, optional
        Maximum length of each; by default every clip is used once, and about as many utterances
        between two clips as there are for each clip.
    seed : int

    Raises
    ------
    ConfigError
        If training leaves nothing out.
    """
    homophones = [word for words in recipe.homophones.values() for word in words]
    without = [*recipe.keywords, *homophones]
    clips = [
        clip
        for words in recipe.words
        if words.split != "train" and not words.unknown
        for clip in keyword_clips(
            root / words.path,
            recipe.keywords,
            split="validation" if words.split == "hash" else "all",
        )
    ]
    utterances = [
        path for corpus in recipe.speech for path in _left_out(corpus, root, without=without)
    ]
    utterances += [path for more in background for path in quiet_utterances(more, without=without)]
    noise = [path for name in recipe.noise for path in audio_matching(root, name)]
    return [
        build_stream(
            clips,
            utterances,
            noise,
            snr_db=one,
            snr_rule=snr_rule,
            seed=seed + list(snr_db[:i]).count(one),
            most_s=None if minutes is None else 60 * minutes,
            n_background=max(1, len(utterances) // max(1, len(clips))),
        )
        for i, one in enumerate(snr_db)
    ]


def _left_out(corpus: SpeechCorpus, root: Path, *, without: Sequence[str]) -> list[Path]:
    """Return the utterances without keywords that training does not use, but for evaluation's."""
    folder = root / corpus.path
    if corpus.optional and not folder.is_dir():
        return []
    if corpus.speakers == "quarters":
        avoided = {word.upper() for word in without}
        known = words_by_utterance(corpus, root, without=without, quarters=TUNING)
        return [
            path
            for path, words in known.items()
            if avoided.isdisjoint(word for word, _, _ in words)
        ]
    if corpus.alignment is None:
        return [
            path
            for path in unaligned_utterances(corpus, root, without=without)
            if is_validation(path.stem)
        ]
    speakers = None if corpus.speakers == "all" else speaker_halves(folder)[0]
    aligned = read_alignment(root / corpus.alignment)
    return [
        path
        for path in quiet_utterances(folder, without=without, speakers=speakers)
        if path.stem not in aligned or is_validation(path.stem)
    ]
