"""Words are made of parts of other words."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws_train.data.align import align, read_alignment
from kws_train.data.audio_files import read_samples
from kws_train.synth.splice import splice

LIBRISPEECH = Path(__file__).parents[2] / "data" / "librispeech"
EDGE = RATE_HZ // 5 - RATE_HZ // 80
RECORDING = LIBRISPEECH / "dev-clean/84/121123/84-121123-0014.opus"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The words of one sentence as clips of two speakers."""
    folder = tmp_path_factory.mktemp("words")
    align(LIBRISPEECH, folder / "alignment.jsonl")
    (utterance,) = read_alignment(folder / "alignment.jsonl").values()
    samples = read_samples(RECORDING)
    for word, start_s, end_s in utterance.words:
        clip = samples[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)]
        padded = np.pad(clip, RATE_HZ // 4)
        (folder / word.lower()).mkdir()
        for speaker in ("alice", "bob"):
            path = folder / word.lower() / f"{speaker}_nohash_0.wav"
            soundfile.write(path, padded, RATE_HZ)
    return folder


def test_a_word_is_made_of_two_others(words, tmp_path):
    assert splice(words, tmp_path, word="oce", parts=[("alone", "OW"), ("must", "S")]) == 2
    made = sorted((tmp_path / "oce").iterdir())
    assert [path.name for path in made] == ["alice_nohash_0.flac", "bob_nohash_1.flac"]
    samples = read_samples(made[0])
    assert 0.45 * RATE_HZ < len(samples) < 0.9 * RATE_HZ
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 1000)
    assert 0.15 < loud[0] / RATE_HZ < 0.3, "background comes before the word"
    assert np.abs(np.diff(samples.astype(int))).max() < 12_000, "a join does not click"


def test_a_seed_decides_what_is_made(words, tmp_path):
    for folder in ("first", "again"):
        splice(words, tmp_path / folder, word="w", parts=[("no", "OW"), ("must", "S")], seed=3)
    first, again = (
        read_samples(tmp_path / f / "w/alice_nohash_0.flac") for f in ("first", "again")
    )
    assert np.array_equal(first, again)


def test_parts_can_last_longer_at_their_pitch(words, tmp_path):
    parts = [("no", "OW"), ("must", "S")]
    usual, longer = (
        word_of(words, tmp_path / str(times), parts=parts, stretch=(times, times))
        for times in (1.0, 1.8)
    )
    join = RATE_HZ // 80
    assert len(longer) + join == pytest.approx(1.8 * (len(usual) + join), abs=2)
    half = slice(0, len(usual) // 4)
    assert pitch_hz(longer[half]) == pytest.approx(pitch_hz(usual[half]), rel=0.05)


def word_of(words, folder, **options):
    """Return the spliced word of a speaker without the background around it."""
    splice(words, folder, word="w", **options)
    return read_samples(folder / "w/alice_nohash_0.flac")[EDGE:-EDGE].astype(float)


def pitch_hz(samples):
    """Return the rate at which a voice repeats itself, 70 to 350 Hz, by autocorrelation."""
    least, most = RATE_HZ // 350, RATE_HZ // 70
    same = np.correlate(samples, samples, "full")[len(samples) - 1 :]
    return RATE_HZ / (least + int(same[least:most].argmax()))


def test_only_so_many_clips_are_taken(words, tmp_path):
    assert splice(words, tmp_path, word="w", parts=[("no", "OW")], most=1) == 1


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([("no", "ZH")], "a phone said once in a word. Received: ZH of no"),
        ([("no", "")], "a word and one of its phones, such as stop:AA. Received: no"),
        ([("absent", "AA")], "must hold audio"),
    ],
)
def test_a_part_that_is_not_there_is_named(words, tmp_path, parts, says):
    with pytest.raises(ConfigError, match=says):
        splice(words, tmp_path, word="w", parts=parts)


def test_a_stretch_from_long_to_short_is_refused(words, tmp_path):
    message = "the lower number first. Received: --stretch 1.8 1. Give LOW and HIGH."
    with pytest.raises(ConfigError, match=f"{re.escape(message)}$"):
        splice(words, tmp_path, word="w", parts=[("no", "OW")], stretch=(1.8, 1.0))
