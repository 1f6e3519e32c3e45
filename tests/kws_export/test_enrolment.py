"""The bundled file of enrolment: a network to fill in, and speech in a few bytes a vector."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kws.commands.enrolment_data import (
    N_VECTORS,
    enrolment_data_path,
    fill_network,
    read_enrolment_data,
)
from kws.model import embedding_reference

pytestmark = pytest.mark.slow

LIBRISPEECH = Path(__file__).parents[1] / "data" / "librispeech"


def test_the_file_holds_a_network_and_the_vectors_of_speech(tmp_path):
    from kws_export.enrolment import write_enrolment_data
    from kws_train.data.audio_files import read_samples
    from kws_train.data.front_ends import speech_embedding

    (recording,) = LIBRISPEECH.rglob("*.opus")
    write_enrolment_data([recording], tmp_path / "enrolment.npz")
    data = read_enrolment_data(tmp_path / "enrolment.npz")
    vectors = speech_embedding().vectors(read_samples(recording)[: 15 * 16_000]).astype(np.float32)
    (kept,) = data.utterances
    assert data.embedding_sha256 == embedding_reference().sha256
    assert kept.shape == vectors.shape
    assert np.abs(kept - vectors).max() <= 0.75 + 1e-6  # rounded to 1.5
    assert b"TFL3" in fill_network(data.network, np.ones((2, 96), np.float32), 0.0)


def test_what_exceeds_the_hours_is_not_used(tmp_path):
    from kws_export.enrolment import write_enrolment_data

    (recording,) = LIBRISPEECH.rglob("*.opus")
    write_enrolment_data([recording] * 12, tmp_path / "enrolment.npz", hours=20 / 3600)
    assert sum(map(len, read_enrolment_data(tmp_path / "enrolment.npz").utterances)) == 250


def test_speech_is_of_speakers_to_train_on(tmp_path):
    from kws_export.enrolment import speech_to_enroll_with

    (recording,) = LIBRISPEECH.rglob("*.opus")
    for speaker in ("84", "85"):
        folder = tmp_path / "librispeech" / speaker
        folder.mkdir(parents=True)
        shutil.copy(recording, folder / f"{speaker}-1-0000.opus")
        (folder / f"{speaker}-1.trans.txt").write_text("")
    sets = ("librispeech_train", "librispeech_other", "alphanumeric", "coffee_orders")
    for name in sets:
        for speaker in "abcdefgh":
            folder = tmp_path / "more_speech" / name / speaker
            folder.mkdir(parents=True)
            shutil.copy(recording, folder / "1.opus")
    paths = speech_to_enroll_with(tmp_path)
    assert [path.relative_to(tmp_path).parts[-3] for path in paths[:5]] == ["librispeech", *sets]
    assert {path.parent.name for path in paths} == {"84", *"abef"}
    assert len(paths) == 1 + 4 * len(sets)


def test_the_bundled_network_is_the_one_that_is_made():
    from kws_export.enrolment import empty_network

    assert len(read_enrolment_data(enrolment_data_path()).network) == len(empty_network(96))
    assert N_VECTORS == 20
