"""Synthetic voices say words: as many as asked for, varied, checked, kept, and gone on with."""

import shutil
import time

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from kws.cli import cli
from kws.errors import ConfigError, KwsError
from kws_train.data.audio_files import read_samples
from kws_train.synth.phrases import Phrase
from kws_train.synth.synthesize import seconds_per_clip, synthesize


class Hums:
    """Says everything with the same voice-like sound, and remembers what it was asked for."""

    name, version, n_voices = "hums", "1", 4

    def __init__(self, voiced, seconds=0.5):
        self.sound, self.lines = voiced[: round(16_000 * seconds)], []

    def draw_voice(self, random, /):
        return f"hum_{random.integers(4)}:0.5+buzz"

    def speak(self, line, /):
        self.lines.append(line)
        return np.roll(self.sound, 7 * len(self.lines))


class FixedTranscriber:
    """Transcribes every clip as the same text."""

    name = "told"

    def __init__(self, text):
        self.text, self.n = text, 0

    def transcribe(self, samples, /):
        self.n += 1
        return self.text


@pytest.fixture
def speak(tmp_path, voiced):
    """Synthesise into `tmp_path/out` with a cache beside it."""

    def speak(words, engine=None, **options):
        engine = engine or Hums(voiced)
        options = {"cache": tmp_path / "cache", **options}
        return synthesize(words, tmp_path / "out", [engine], **options)

    return speak


def test_as_many_clips_are_written_as_asked_for(tmp_path, speak, voiced):
    engine = Hums(voiced)
    report = speak({"off": 3, "Hey Computer!": 2}, engine)
    assert (report.n_wanted, report.n_written, report.n_kept) == (5, 5, 0)
    assert (report.dropped, report.missing, report.unsayable) == ({}, {}, ())
    names = sorted(path.name for path in (tmp_path / "out/hey_computer").iterdir())
    assert {name.partition("_")[2] for name in names} == {"nohash_0.flac", "nohash_1.flac"}
    assert {name[:3] for name in names} == {"hum"}
    assert names[0].startswith(("hum0-buzz", "hum1-buzz", "hum2-buzz", "hum3-buzz"))
    assert soundfile.info(tmp_path / "out/hey_computer" / names[0]).samplerate == 16_000
    said = {"".join(filter(str.isalpha, line.text.lower())) for line in engine.lines}
    assert said == {"off", "heycomputer"}


def test_the_same_seed_says_the_same_and_another_something_else(speak, tmp_path, voiced):
    said = []
    for i, seed in enumerate((1, 1, 2)):
        engine = Hums(voiced)
        speak({"off": 6}, engine, seed=seed, cache=tmp_path / f"cache{i}")
        said.append(set(engine.lines))
        shutil.rmtree(tmp_path / "out")
    assert said[0] == said[1] != said[2]


def test_an_interrupted_synthesis_goes_on_where_it_stopped(speak, tmp_path, voiced):
    class Stops(Hums):
        def speak(self, line, /):
            if len(self.lines) == 6:
                raise KeyboardInterrupt
            return super().speak(line)

    with pytest.raises(KeyboardInterrupt):
        speak({"off": 10}, Stops(voiced))
    assert len(list((tmp_path / "out/off").iterdir())) == 6
    engine = Hums(voiced)
    report = speak({"off": 10}, engine)
    assert (report.n_kept, report.n_written, len(engine.lines)) == (6, 4, 4)
    assert not list(tmp_path.glob("**/.*"))


def test_what_was_said_before_comes_from_the_cache(speak, tmp_path, voiced):
    first = speak({"off": 5})
    shutil.rmtree(tmp_path / "out")
    engine = Hums(voiced)
    report = speak({"off": 5}, engine)
    assert (first.n_spoken, report.n_spoken, report.n_written) == (5, 0, 5)
    assert engine.lines == []


def test_another_version_of_a_voice_is_not_taken_from_the_cache(speak, tmp_path, voiced):
    speak({"off": 3})
    shutil.rmtree(tmp_path / "out")
    engine = Hums(voiced)
    engine.version = "2"
    assert speak({"off": 3}, engine).n_spoken == 3


def test_a_clip_left_half_written_is_not_taken_for_one(speak, tmp_path, voiced, monkeypatch):
    def fill_the_disk(file, *_):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("soundfile.write", fill_the_disk)
        with pytest.raises(KwsError, match=r"could not be written: .*No space left"):
            speak({"off": 3})
    assert [path for path in tmp_path.glob("**/*") if path.is_file()] == []
    assert speak({"off": 3}).n_written == 3


@pytest.mark.parametrize(
    ("seconds", "why"), [(0.0, "empty"), (0.08, "too short"), (1.99, "too long")]
)
def test_what_is_no_word_is_dropped_counted_and_given_up(speak, tmp_path, voiced, seconds, why):
    engine = Hums(voiced, seconds)
    report = speak({"off": 20}, engine)
    assert (report.n_written, report.dropped) == (0, {why: 12})  # four clips, three attempts
    assert report.missing == {"off": 20}
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=rf"that voices can say\. Received: `off`.*\({why}\)"):
        report.require(["off"])


def test_silence_and_noise_are_empty(speak, voiced, random):
    for sound in (np.zeros(8000), random.normal(0, 3, 8000)):
        engine = Hums(voiced)
        engine.sound = sound.astype(np.int16)
        assert set(speak({"off": 1}, engine).dropped) == {"empty"}


def test_a_voice_that_fails_is_counted(speak, voiced):
    class Fails(Hums):
        def speak(self, line, /):
            raise ValueError("no such phoneme")

    assert speak({"off": 1}, Fails(voiced)).dropped == {"failed": 3}


def test_what_is_not_read_back_is_dropped_and_never_read_twice(speak, tmp_path):
    wrong = FixedTranscriber("A bottle of water")
    report = speak({"hey computer": 1}, transcriber=wrong)
    assert (report.dropped, report.n_written, wrong.n) == ({"misread": 3}, 0, 3)
    speak({"hey computer": 1}, transcriber=wrong)
    assert wrong.n == 3
    right = FixedTranscriber("Hey, computer.")
    right.name = "another"
    assert speak({"hey computer": 1}, transcriber=right).n_written == 1


@pytest.mark.slow
def test_processes_make_what_one_makes(tmp_path):
    if not shutil.which("espeak-ng"):
        pytest.skip("espeak-ng is not installed")
    from kws_train.synth.voices.programs import Espeak

    for n_jobs in (1, 2):
        out, cache = tmp_path / f"out{n_jobs}", tmp_path / f"cache{n_jobs}"
        synthesize({"off": 6}, out, [Espeak()], cache=cache, n_jobs=n_jobs)
    one, two = (sorted((tmp_path / f"out{n}/off").iterdir()) for n in (1, 2))
    assert [path.name for path in one] == [path.name for path in two]
    assert all(
        np.array_equal(read_samples(a), read_samples(b)) for a, b in zip(one, two, strict=True)
    )


def test_the_command_says_what_came_of_it_and_goes_on(tmp_path, monkeypatch, voiced):
    monkeypatch.setattr(
        "kws_train.synth.voices.discover.open_engines", lambda *_, **__: [Hums(voiced)]
    )
    out = str(tmp_path / "out")
    command = ["synth", out, "--word", "off=2", "--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.stdout == f"{out}: 2 clips written, 0 found, 0 dropped, 0 missing\n"
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.stdout == f"{out}: 0 clips written, 2 found, 0 dropped, 0 missing\n"


def test_the_command_says_that_it_goes_on(tmp_path, monkeypatch, voiced):
    class Stops(Hums):
        def speak(self, line, /):
            raise KeyboardInterrupt

    monkeypatch.setattr(
        "kws_train.synth.voices.discover.open_engines", lambda *_, **__: [Stops(voiced)]
    )
    command = ["synth", str(tmp_path / "out"), "--word", "off=2", "--cache", str(tmp_path / "c")]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code != 0
    assert "interrupted: run the same command to resume" in done.stderr


def test_how_long_a_clip_takes_is_measured(voiced):
    class Slow(Hums):
        def speak(self, line, /):
            time.sleep(0.02)
            return super().speak(line)

    phrase = Phrase.of("off")
    assert 0.02 <= seconds_per_clip(phrase, [Slow(voiced)]) < 5
    half = Slow(voiced)
    assert seconds_per_clip(phrase, [half, Hums(voiced)]) >= 0.01
    assert len(half.lines) == 3


@pytest.mark.slow
def test_the_command_makes_what_is_near(tmp_path, monkeypatch, voiced):
    monkeypatch.setattr(
        "kws_train.synth.voices.discover.open_engines", lambda *_, **__: [Hums(voiced)]
    )
    command = ["synth", str(tmp_path / "out"), "--near", "hey computer=60"]
    command += ["--cache", str(tmp_path / "cache")]
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    labels = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"computer", "hey_commuter"} <= labels
    assert "hey_computer" not in labels
    assert len(list((tmp_path / "out").glob("*/*.flac"))) == 60


@pytest.mark.slow
def test_no_keyword_is_made_as_what_is_near_another(tmp_path, monkeypatch, voiced):
    monkeypatch.setattr(
        "kws_train.synth.voices.discover.open_engines", lambda *_, **__: [Hums(voiced)]
    )
    command = ["synth", str(tmp_path / "out"), "--near", "on=40", "--near", "off=40"]
    command += ["--word", "up=3", "--cache", str(tmp_path / "cache")]
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    made = {path.name: len(list(path.iterdir())) for path in (tmp_path / "out").iterdir()}
    assert not {"on", "off"} & set(made)
    assert made["up"] == 3
    assert sum(made.values()) == 83


@pytest.mark.parametrize("arguments", [["--word", "off"], ["--word", "=3"], []])
def test_the_command_wants_words_and_numbers(tmp_path, arguments):
    done = CliRunner().invoke(cli, ["synth", str(tmp_path), *arguments])
    assert done.exit_code == 2
    assert "WORD=N" in done.stderr or "off=100" in done.stderr
