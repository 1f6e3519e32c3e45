"""Candidates from the clips that the daemon has recorded, added one by one as they are labelled."""

import hashlib
from pathlib import Path

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.clip_sidecar import ClipSidecar
from kws.manifest import Manifest
from kws.mined.clip_file import clip_span_s, write_clip
from kws.mined.folder import Candidate, MinedFolder, candidate_id
from kws.mined.word_embedding import word_embedding

__all__ = ["label_recorded_clip"]


def label_recorded_clip(
    folder: MinedFolder,
    recording: Path,
    content: bytes,
    samples: Samples,
    about: ClipSidecar,
    *,
    label: str | None,
    manifest: Manifest,
) -> None:
    """Label the word of a recorded clip; it becomes a candidate of the folder, if it is none yet.

    Parameters
    ----------
    folder : MinedFolder
        Created with the first label.
    recording : Path
        The file of the clip.
    content : bytes
        Of that file.
    samples : int16 [shape=(n,)]
        Its audio, at 16 kHz.
    about : ClipSidecar
        Of the clip.
    label : str or None
        A keyword, `_unknown_` or `UNSURE`; None retracts the label.
    manifest : Manifest
        Of the model that gave the event.

    Raises
    ------
    ConfigError
        If another process labels the folder, or soundfile is not installed.
    """
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    start_s, end_s = (round(one, 3) for one in about.word_s)
    digest = hashlib.sha256(content).hexdigest()[:12]
    key = candidate_id(digest, end_s=end_s, keyword=about.event.keyword)
    with folder.open_label_log() as log:
        known = folder.candidates() if folder.has_candidates else []
        if all(one.id != key for one in known):
            first_s, last_s = clip_span_s((start_s, end_s))
            clip = Path("clips") / f"{key}.flac"
            part = samples[round(first_s * SAMPLE_RATE_HZ) : round(last_s * SAMPLE_RATE_HZ)]
            write_clip(folder.path / clip, part)
            made = Candidate(
                id=key,
                keyword=about.event.keyword,
                score=about.event.score,
                kind="detection" if about.kind == "detection" else "near_miss",
                source=str(recording),
                start_s=start_s,
                end_s=end_s,
                clip=str(clip),
                word_s=(round(start_s - first_s, 3), round(end_s - first_s, 3)),
                rank=len(known) + 1,
                embedding=word_embedding(samples, about.word_s),
            )
            folder.write_candidates([*known, made], manifest=manifest)
        log.append(key, label)
