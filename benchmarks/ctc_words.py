"""Word error rates of CTC models on sequences of words, measured with the runtime.

Utterances are clips of single words one after another.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.config import DecisionSettings, GateSettings
from kws.ctc_decision import greedy, prefix_beam
from kws.errors import ConfigError
from kws.features import Features
from kws.manifest import SILENCE
from kws.model import Model
from kws.spotter import Spotter
from kws_train.data.audio_files import read_samples
from kws_train.data.speech_span import speech_span

__all__ = [
    "SequenceScores",
    "Utterance",
    "build_utterances",
    "decode_sequences",
    "edit_distance",
    "evaluate_sequences",
    "word_error_rate",
]

Utterance: TypeAlias = tuple[tuple[str, ...], Samples]

_MARGIN_S = 0.05
_TAIL_S = 0.6
_BEAM = 8


class SequenceScores(msgspec.Struct, frozen=True, kw_only=True):
    """Word error rates, and shares of utterances decoded without an error, 0..1.

    Attributes
    ----------
    n : int
        Utterances.
    n_words : int
    word_error_rate, sequence_accuracy : dict of str to float
        `greedy` and `beam` decode all outputs of an utterance; `runtime` is the whole pipeline, at
        a threshold of 0 and without the gate.
    """

    n: int
    n_words: int
    word_error_rate: dict[str, float]
    sequence_accuracy: dict[str, float]


def build_utterances(
    clips: Sequence[tuple[str, Path]], *, n: int, most_words: int = 5, seed: int = 1
) -> list[Utterance]:
    """Concatenate clips of words: one to `most_words` words, 0.1 to 0.3 s between them.

    Parameters
    ----------
    clips : sequence of (word, path)
    n : int
        Utterances.
    """
    random = np.random.default_rng(seed)
    utterances = []
    for _ in range(n):
        chosen = random.integers(len(clips), size=int(random.integers(1, most_words + 1)))
        pieces = [np.zeros(int(0.3 * RATE_HZ), np.int16)]
        for i in chosen:
            clip = read_samples(clips[i][1])
            start, end = speech_span(clip, said=clips[i][0])
            margin = int(_MARGIN_S * RATE_HZ)
            pieces.append(clip[max(0, start - margin) : end + margin])
            pieces.append(np.zeros(int(random.uniform(0.0, 0.2) * RATE_HZ), np.int16))
        pieces.append(np.zeros(int(_TAIL_S * RATE_HZ), np.int16))
        utterances.append((tuple(clips[i][0] for i in chosen), np.concatenate(pieces)))
    return utterances


def decode_sequences(model: Model, utterances: Sequence[Utterance]) -> dict[str, list[list[str]]]:
    """Return the keywords of each utterance: greedy, with a beam, with the whole pipeline."""
    labels, keywords = model.manifest.labels, model.manifest.keywords
    blank = labels.index(SILENCE)
    features = Features(model.manifest.features)
    settings = DecisionSettings(threshold=0.0)
    spotter = Spotter(model, gate=GateSettings(enabled=False), decision=settings)
    decoded: dict[str, list[list[str]]] = {"greedy": [], "beam": [], "runtime": []}
    for _, samples in utterances:
        posteriors = model.run(features.whole(samples))
        log_probs = np.log(np.maximum(posteriors, 1e-7))
        found = {
            "greedy": greedy(log_probs, blank=blank),
            "beam": prefix_beam(log_probs, beam=_BEAM, blank=blank)[0][0],
        }
        for how, sequence in found.items():
            decoded[how].append([labels[i] for i in sequence if labels[i] in keywords])
        detections = [*spotter.process(samples), *spotter.flush()]
        decoded["runtime"].append([word for one in detections for word in one.keyword.split()])
    return decoded


def evaluate_sequences(model: Model, utterances: Sequence[Utterance]) -> SequenceScores:
    """Return the scores of a model, by each way to decode."""
    decoded = decode_sequences(model, utterances)
    said = [list(words) for words, _ in utterances]
    return SequenceScores(
        n=len(said),
        n_words=sum(len(words) for words in said),
        word_error_rate={how: word_error_rate(said, one) for how, one in decoded.items()},
        sequence_accuracy={
            how: float(np.mean([not edit_distance(*pair) for pair in zip(said, one, strict=True)]))
            for how, one in decoded.items()
        },
    )


def word_error_rate(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]
) -> float:
    """Return substitutions, deletions and insertions over the number of reference words.

    Raises
    ------
    ConfigError
        If there is no reference word.
    """
    n_words = sum(len(reference) for reference in references)
    if not n_words:
        raise ConfigError("A word error rate needs reference words. Received: none.")
    pairs = zip(references, hypotheses, strict=True)
    return sum(edit_distance(*pair) for pair in pairs) / n_words


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Return the least number of words to substitute, delete or insert (Levenshtein 1966)."""
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, start=1):
        above, row = row, [i]
        for j, other in enumerate(hypothesis, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1]
