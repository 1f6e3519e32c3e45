"""Evaluation data of a request: streams and clips that neither training nor calibration uses."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kws.manifest import UNKNOWN
from kws_train.atomic import link
from kws_train.data.audio_files import audio_files
from kws_train.evaluate.build_stream import Stream, build_stream, keyword_clips
from kws_train.own_word.prepare import find_speech, labels_of_request, n_test_recordings
from kws_train.own_word.workspace import Request, Workspace

__all__ = ["describe_voices", "evaluation_streams", "link_test_clips", "negative_clips"]

NOISY_SNR_DB = 10.0
"""Signal-to-noise ratio of the noisy stream, and of noisy streams for calibration."""

_MAX_CLIPS = 400


def evaluation_streams(
    request: Request, workspace: Workspace, *, by_voices: bool = False
) -> list[Stream]:
    """Return a clean and a noisy stream of held-out words in held-out speech.

    Parameters
    ----------
    request : Request
    workspace : Workspace
    by_voices : bool
        True: words by synthetic voices, even if there are recordings.
    """
    clips = _word_clips(request, workspace, by_voices=by_voices)
    speech = find_speech(request, workspace).test
    return [
        build_stream(
            clips,
            speech,
            audio_files(workspace.noise / "test"),
            snr_db=snr_db,
            snr_rule="peak",
            seed=request.seed,
            n_background=max(1, len(speech) // len(clips)),
        )
        for snr_db in (float("inf"), NOISY_SNR_DB)
    ]


def link_test_clips(request: Request, workspace: Workspace) -> None:
    """Link the clips of the evaluation into `workspace.test_clips`, a folder for each label."""
    negatives = negative_clips(request, workspace)
    unknown = [(UNKNOWN, path) for paths in negatives.values() for path in paths]
    shutil.rmtree(workspace.test_clips, ignore_errors=True)
    for label, path in (*_word_clips(request, workspace), *unknown):
        link(path, workspace.test_clips / label / f"{path.parent.name}-{path.name}")


def negative_clips(request: Request, workspace: Workspace) -> dict[str, list[Path]]:
    """Return clips of confusable phrases by held-out voices, by text."""
    labels = labels_of_request(request)
    found: dict[str, list[Path]] = {}
    for folder in (workspace.synthetic / "validation", workspace.synthetic / "test"):
        for path in audio_files(folder) if folder.is_dir() else ():
            if path.parent.name not in labels:
                found.setdefault(path.parent.name, []).append(path)
    return found


def describe_voices(request: Request, workspace: Workspace) -> str:
    """Return whose words the evaluation uses."""
    labels = labels_of_request(request)
    if n_test_recordings(request, workspace):
        voices = "held-out recordings"
    elif any((workspace.synthetic_all / label).is_dir() for label in labels):
        voices = "held-out synthetic voices; expect more misses with people"
    else:
        voices = "the recordings it was trained on; expect more misses with others"
    return voices if request.speech else f"{voices}; within synthetic speech"


def _word_clips(
    request: Request, workspace: Workspace, *, by_voices: bool = False
) -> Sequence[tuple[str, Path]]:
    """Return labelled clips of the phrases, a random choice if there are many.

    Test recordings if there are any, else clips of held-out voices, else recordings that were
    trained on.
    """
    labels = labels_of_request(request)
    has_recordings = not by_voices and n_test_recordings(request, workspace) > 0
    held_out = workspace.recordings if has_recordings else workspace.synthetic
    folders = held_out / "test", workspace.recordings / "train"
    clips = next(filter(None, (keyword_clips(one, labels, split="all") for one in folders)), [])
    order = np.random.default_rng(request.seed).permutation(len(clips))
    return [clips[i] for i in sorted(order[:_MAX_CLIPS])]
