"""Figures are counted right: read-out of clips, misses and false alarms on streams."""

import re
import wave
from pathlib import Path

import numpy as np
import pytest

from kws.errors import ConfigError
from kws.manifest import FeatureSettings, Manifest
from kws.train.evaluate import evaluate_clips, evaluate_stream, labelled_clips, read_out
from kws.train.streams import build_stream, quiet_utterances

LABELS = ("_silence_", "_unknown_", "go", "stop")
RATE_HZ = 16_000


class Pitch:
    """A model that says `go` to a low tone, `stop` to a middle one, `_unknown_` to a high one."""

    n_outputs = 1

    def __init__(self) -> None:
        self.manifest = Manifest(
            name="pitch",
            labels=LABELS,
            kind="step",
            features=FeatureSettings(kind="logmel", n_mels=15, floor=1.0),
            n_frames=2,
            hop_frames=2,
        )

    def reset(self) -> None:
        """Nothing to forget."""

    def step(self, frames: np.ndarray) -> np.ndarray:
        low, middle, high = frames.mean(axis=0).reshape(3, 5).max(axis=1)
        loudest = max(low, middle, high)
        out = np.full((1, 4), 0.01, np.float32)
        if loudest < 8:
            out[0, 0] = 0.97
        else:
            out[0, {low: 2, middle: 3, high: 1}[loudest]] = 0.97
        return out


LOW_HZ, MIDDLE_HZ, HIGH_HZ = 300, 1300, 5000


def tone(path: Path, *, hz: float, amplitude: float = 4000, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    quiet = np.zeros(RATE_HZ // 4)
    loud = amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    samples = np.concatenate((quiet, loud, quiet)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def test_a_word_is_read_out_by_its_peak_and_silence_by_its_lowest_point() -> None:
    posteriors = np.zeros((20, 4))
    posteriors[:, 0] = 1.0
    assert read_out(posteriors, LABELS) == 0
    posteriors[8:14] = [0.1, 0.1, 0.1, 0.7]
    assert read_out(posteriors, LABELS) == 3


def test_one_frame_is_not_enough_to_be_read_out() -> None:
    posteriors = np.zeros((20, 4))
    posteriors[:, 0] = 1.0
    posteriors[9] = [0.1, 0.0, 0.9, 0.0]
    assert read_out(posteriors, LABELS) == 0


def test_clips_are_counted_by_true_and_heard_label(tmp_path: Path) -> None:
    tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    tone(tmp_path / "go" / "b.wav", hz=MIDDLE_HZ)
    tone(tmp_path / "_silence_" / "1.wav", hz=LOW_HZ, amplitude=0)
    (tmp_path / "go" / "c.wav").write_bytes(b"not audio")
    scores = evaluate_clips(Pitch(), tmp_path, split="all", model_bytes=7)
    assert scores.n == 3
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.recall == {"_silence_": 1.0, "go": 0.5}
    assert scores.confusion[2] == [0, 0, 1, 1]
    assert scores.unreadable == [str(tmp_path / "go" / "c.wav")]
    assert scores.model_bytes == 7


def test_folders_of_other_words_are_unknown(tmp_path: Path) -> None:
    tone(tmp_path / "bird" / "a.wav", hz=HIGH_HZ)
    assert labelled_clips(tmp_path, labels=LABELS, split="all")[0][1] == "_unknown_"


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    message = (
        "A folder to evaluate on must hold word/clip files of the split `test`. Received: "
        f"{tmp_path} with none. Give another folder, or `--split all`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        labelled_clips(tmp_path, labels=LABELS, split="test")


def corpus(folder: Path) -> Path:
    """Write a corpus of two high tones, of which one has the word GO in its transcript."""
    chapter = folder / "1" / "2"
    tone(chapter / "1-2-0000.wav", hz=HIGH_HZ, seconds=2)
    tone(chapter / "1-2-0001.wav", hz=HIGH_HZ, seconds=2)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 LET US GO\n1-2-0001 NOBODY CAME\n")
    return folder


def test_utterances_that_hold_a_keyword_are_left_out(tmp_path: Path) -> None:
    found = quiet_utterances(corpus(tmp_path), without=["go", "stop"])
    assert [path.name for path in found] == ["1-2-0001.wav"]


def test_a_stream_is_the_same_for_the_same_seed_and_labels_lie_on_the_words(tmp_path: Path) -> None:
    clip = tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    background = quiet_utterances(corpus(tmp_path / "speech"), without=["go"])
    first, again, other = (
        build_stream([("go", clip)] * 5, background, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.samples, again.samples)
    assert len(first.samples) != len(other.samples)
    for word in first.words:
        said = first.samples[round(word.start_s * RATE_HZ) : round(word.end_s * RATE_HZ)]
        assert np.sqrt(np.mean(said.astype(float) ** 2)) > 1000
        assert 0.45 < word.end_s - word.start_s < 0.6


def test_noise_lies_at_the_ratio_asked_for(tmp_path: Path) -> None:
    clip = tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    hum = tone(tmp_path / "hum.wav", hz=HIGH_HZ, seconds=9)
    background = quiet_utterances(corpus(tmp_path / "speech"), without=["go"])
    clean = build_stream([("go", clip)] * 4, background, seed=1)
    noisy = build_stream([("go", clip)] * 4, background, [hum], snr_db=10, seed=1)
    noise = noisy.samples.astype(float) - clean.samples
    assert 10 * np.log10(1500**2 / np.mean(noise**2)) == pytest.approx(10, abs=0.5)


def test_a_stream_without_background_is_refused(tmp_path: Path) -> None:
    message = (
        "A stream needs clips and background speech. Received: 1 clips, 0 utterances. "
        "Give folders that hold both."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build_stream([("go", tmp_path / "a.wav")], [])


def test_misses_and_false_alarms_are_counted_on_a_stream(tmp_path: Path) -> None:
    clip = tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    background = quiet_utterances(corpus(tmp_path / "speech"), without=["go"])
    stream = build_stream([("go", clip)] * 6 + [("stop", clip)] * 2, background, seed=1)
    scores = evaluate_stream(Pitch(), stream)
    assert scores.n_words == 8
    usual = scores.points[-1]
    assert usual.miss_rate == pytest.approx(2 / 8)
    assert usual.miss_low < 0.25 < usual.miss_high
    assert scores.miss_rate_per_keyword == {"go": 0.0, "stop": 1.0}
    # The two clips that are called `stop` are low tones too: heard as `go`, they are false alarms.
    assert usual.fa_per_hour * scores.hours == pytest.approx(2)
    assert usual.fa_low < usual.fa_per_hour < usual.fa_high
    assert scores.points[0].threshold > 0.97
    assert scores.points[0].miss_rate == 1.0
    # This model answers at a word's start, half a second before its end.
    assert -500 <= scores.latency_ms["p50"] <= -400
