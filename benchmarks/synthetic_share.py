"""Print the share of synthetic words among those that a recipe draws, by label.

python benchmarks/synthetic_share.py RECIPE DATA
"""

import sys
from pathlib import Path

import numpy as np

from kws.manifest import UNKNOWN
from kws_train.data.corpus import Clip, load_corpus
from kws_train.recipe import load_recipe


def main(path: Path, data: Path) -> None:
    """Print the share of each label, and of all words in the last stage."""
    recipe = load_recipe(path).stages()[-1]
    corpus = load_corpus(recipe.data, data, split="train")
    shares = {label: _share(clips) for label, clips in corpus.clips.items()}
    for label, share in shares.items():
        print(f"{label:>12}  {share:6.1%}")
    augment = recipe.augment
    keywords = np.mean([shares[word] for word in recipe.data.keywords])
    unknown = shares[UNKNOWN] * (1 - augment.speech_word_share)
    everything = augment.keyword_share * keywords + (1 - augment.keyword_share) * unknown
    print(f"   all words  {everything:6.1%}")


def _share(clips: list[Clip]) -> float:
    """Weight words by the root of their number of clips, and clips by weight, as scenes do."""
    words: dict[str, list[Clip]] = {}
    for clip in clips:
        words.setdefault(clip.word, []).append(clip)
    roots = np.sqrt([len(word) for word in words.values()])
    synthetic = [
        sum(clip.weight for clip in word if not clip.real) / sum(clip.weight for clip in word)
        for word in words.values()
    ]
    return float(np.average(synthetic, weights=roots))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
