"""The streams that the options of `kws eval stream` and `kws eval report` describe."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kws_train.data.librispeech import quiet_utterances, speaker_halves
from kws_train.data.splits import SplitName
from kws_train.evaluate.build_stream import (
    SnrRule,
    Stream,
    build_stream,
    keyword_clips,
    noise_files,
)

__all__ = ["StreamOptions", "build_streams"]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What to build evaluation streams of."""

    keywords: Path
    """Folder of keyword clips, `word/clip`."""
    background: Path
    """Folder of speech in LibriSpeech's layout."""
    noise: Path | None = None
    """Folder of noise recordings; None: one clean stream."""
    noise_pattern: str = "*"
    """Names of the noise files to use, such as `4-*`."""
    snr_db: Sequence[float] = (10.0,)
    """One stream each; infinity: a clean one."""
    snr_rule: SnrRule = "mean"
    speakers: Literal["second", "all"] = "second"
    """Of the background: the half that recipes reserve for evaluation, or all."""
    split: SplitName = "test"
    """Of the keyword clips."""
    n_background: int = 1
    """Utterances from one keyword to the next."""
    without: Sequence[str] = ()
    """Words whose utterances are left out, as well as those of the keywords."""
    minutes: float | None = None
    """Length of a stream; None: every clip once."""
    seed: int = 1


def build_streams(options: StreamOptions, keywords: Sequence[str]) -> list[Stream]:
    """Build one stream per signal-to-noise ratio.

    Raises
    ------
    ConfigError
        As `kws_train.evaluate.build_stream.build_stream`, or if no noise file matches the pattern.
    """
    folder = options.background
    speakers = speaker_halves(folder)[1] if options.speakers == "second" else None
    clips = keyword_clips(options.keywords, keywords, split=options.split)
    utterances = quiet_utterances(folder, without=[*keywords, *options.without], speakers=speakers)
    noise = noise_files(options.noise, options.noise_pattern) if options.noise else []
    return [
        build_stream(
            clips,
            utterances,
            noise,
            snr_db=snr_db,
            snr_rule=options.snr_rule,
            seed=options.seed,
            most_s=None if options.minutes is None else 60 * options.minutes,
            n_background=options.n_background,
        )
        for snr_db in (options.snr_db if noise else [math.inf])
    ]
