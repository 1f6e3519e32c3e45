import hashlib
import logging
import os
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import sounds

from kws.errors import ConfigError
from kws.manifest import UNKNOWN
from kws_train.data import align as module
from kws_train.data.align import AlignedUtterance
from kws_train.data.audio_files import audio_files
from kws_train.data.corpus import load_corpus
from kws_train.data.splits import official_split
from kws_train.recipe import DataRecipe, SpeechCorpus, WordCorpus

RATE_HZ = 16_000
SPLITS = ("train", "validation", "test")


def exactly(message):
    return f"^{re.escape(message)}$"


def write(path, *, hz=440, seconds=0.1, rate_hz=RATE_HZ, channels=1):
    wave = sounds.tone(hz, seconds, peak=5000, rate_hz=rate_hz)
    return sounds.write(path, np.repeat(wave[:, None], channels, axis=1), rate_hz=rate_hz)


def speaker_of(split):
    """Find a speaker that the published rule puts into a split, with arithmetic of our own."""
    for i in range(1000):
        name = f"{i:08x}"
        percent = int.from_bytes(hashlib.sha1(name.encode()).digest(), "big") % 2**27
        percent = 100 * percent / (2**27 - 1)
        if split == ("validation" if percent < 10 else "test" if percent < 20 else "train"):
            return name
    raise AssertionError(split)


@pytest.fixture
def words(tmp_path):
    """Speech Commands in small: three words, a speaker for every split."""
    for word in ("yes", "no", "tree"):
        for split in SPLITS:
            write(tmp_path / "words" / word / f"{speaker_of(split)}_nohash_0.wav")
    return tmp_path


def recipe(*words, keywords=("yes", "no"), **others):
    folders = words or (WordCorpus(path="words"),)
    return DataRecipe(keywords=list(keywords), words=list(folders), **others)


def test_a_speaker_is_in_one_split_whatever_the_word_number_or_folder():
    for split in SPLITS:
        speaker = speaker_of(split)
        names = (f"yes/{speaker}_nohash_0.wav", f"/elsewhere/no/{speaker}_nohash_17.opus")
        assert {official_split(Path(name)) for name in names} == {split}


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_holds_its_speakers_and_no_other(words, split):
    corpus = load_corpus(recipe(), words, split=split)
    clips = [clip for clips in corpus.clips.values() for clip in clips]
    assert len(clips) == 3
    assert {clip.path.name for clip in clips} == {f"{speaker_of(split)}_nohash_0.wav"}


def test_what_is_no_keyword_is_unknown_and_keeps_its_word(words):
    corpus = load_corpus(recipe(), words, split="train")
    assert {label: [clip.word for clip in clips] for label, clips in corpus.clips.items()} == {
        "yes": ["yes"],
        "no": ["no"],
        UNKNOWN: ["tree"],
    }


def test_a_folder_of_unknown_words_holds_no_keyword(words):
    write(words / "foreign" / "no" / "a.wav")
    folders = (
        WordCorpus(path="words"),
        WordCorpus(path="foreign", unknown=True, split="train", weight=3.0, synthetic=True),
    )
    corpus = load_corpus(recipe(*folders), words, split="train")
    (foreign,) = (clip for clip in corpus.clips[UNKNOWN] if clip.path.name == "a.wav")
    assert (foreign.label, foreign.word, foreign.weight, foreign.real) == (UNKNOWN, "no", 3, False)
    assert len(corpus.clips["no"]) == 1


def test_a_corpus_that_only_trains_is_in_no_other_split(words):
    folder = WordCorpus(path="words", split="train")
    assert len(load_corpus(recipe(folder), words, split="train").clips["yes"]) == 3
    for split in ("validation", "test"):
        assert load_corpus(recipe(folder), words, split=split).clips["yes"] == []


def test_of_each_word_the_first_part_by_name_trains(tmp_path):
    for word in ("yes", "no"):
        for i in range(8):
            write(tmp_path / "words" / word / f"{i}.wav")
    folder = WordCorpus(path="words", split="train", first=0.75)
    corpus = load_corpus(recipe(folder), tmp_path, split="train")
    for word in ("yes", "no"):
        assert [clip.path.stem for clip in corpus.clips[word]] == list("012345")


def test_background_noise_among_the_words_is_no_word(words):
    write(words / "words" / "_background_noise_" / f"{speaker_of('train')}_nohash_0.wav")
    corpus = load_corpus(recipe(noise=["words/_background_noise_"]), words, split="train")
    assert [clip.word for clip in corpus.clips[UNKNOWN]] == ["tree"]
    assert len(corpus.noise) == 1


def test_an_optional_folder_may_be_missing_and_that_is_said(words, caplog):
    folders = (WordCorpus(path="words"), WordCorpus(path="more", optional=True))
    with caplog.at_level(logging.WARNING, "kws.data"):
        load_corpus(recipe(*folders), words, split="train")
    said = [line for line in caplog.messages if line.startswith("left out")]
    assert said == [f"left out, not found: {words / 'more'}"]


def test_unreadable_files_are_left_out_listed_and_said(words, caplog):
    speaker = speaker_of("train")
    empty = words / "words" / "yes" / f"{speaker}_nohash_1.wav"
    soundfile.write(empty, np.zeros(0, np.int16), RATE_HZ)
    torn = words / "words" / "no" / f"{speaker}_nohash_1.flac"
    torn.write_bytes(b"fLaC and then nothing of the kind")
    noise = words / "noise" / "hiss.ogg"
    noise.parent.mkdir()
    noise.write_bytes(b"")
    write(words / "noise" / "hum.wav")
    with caplog.at_level(logging.WARNING, "kws.data"):
        corpus = load_corpus(recipe(noise=["noise"]), words, split="train")
    assert list(corpus.left_out) == [torn, empty, noise]
    assert corpus.left_out[empty] == (
        f"An audio file must hold samples. Received: none in {empty}. Remove it."
    )
    for path in (torn, noise):
        assert corpus.left_out[path].startswith(
            f"An audio file must be readable. Received: {path} ("
        )
    said = [f"left out: {reason}" for reason in corpus.left_out.values()]
    assert [line for line in caplog.messages if line.startswith("left out")] == said
    assert [len(corpus.clips[word]) for word in ("yes", "no")] == [1, 1]
    assert len(corpus.noise) == 1


def test_keywords_without_a_clip_to_train_on_are_refused(words):
    message = (
        f"Every keyword must have clips in the training split. Received none for: maybe, perhaps. "
        f"Add folders of these names below {words}, or drop the keywords."
    )
    wanted = recipe(keywords=["yes", "maybe", "perhaps"])
    with pytest.raises(ConfigError, match=exactly(message)):
        load_corpus(wanted, words, split="train")
    assert load_corpus(wanted, words, split="validation").clips["maybe"] == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_audio_is_refused(tmp_path, exists):
    folder = tmp_path / "words"
    if exists:
        (folder / "yes").mkdir(parents=True)
        (folder / "yes" / "readme.txt").write_text("no audio")
    message = (
        f"A data folder must hold audio (WAV, FLAC, MP3, M4A or another kind). Received: {folder} "
        f"with none. Unpack the data there, or name another folder."
    )
    with pytest.raises(ConfigError, match=exactly(message)):
        load_corpus(recipe(), tmp_path, split="train")
    with pytest.raises(ConfigError, match=exactly(message)):
        audio_files(folder)


@pytest.fixture
def spoken(words):
    """LibriSpeech in small: speakers 1 and 2, of whom the first trains; ten utterances each."""
    folder = words / "speech"
    lines = []
    for speaker in ("1", "2"):
        names = [f"{speaker}-9-{i:04d}" for i in range(20)]
        for name in names:
            write(folder / speaker / "9" / f"{name}.flac", seconds=1.0)
            times = (("SO", 0.0, 0.2), ("YES", 0.2, 0.6), ("NO", 0.65, 0.7))
            lines.append(msgspec.json.encode(AlignedUtterance(name, speaker, times)) + b"\n")
        text = "".join(f"{name} SO YES NO\n" for name in names)
        (folder / speaker / "9" / f"{speaker}-9.trans.txt").write_text(text)
    (folder / "SPEAKERS.TXT").write_text(";ID |SEX\n2 | F\n1 | M\n")
    (words / "alignment.jsonl").write_bytes(b"".join(lines))
    return words


def speech(**settings):
    return SpeechCorpus(path="speech", alignment="alignment.jsonl", **settings)


def test_the_first_half_of_the_speakers_trains_and_some_of_its_utterances_validate(spoken):
    wanted = recipe(speech=[speech()])
    corpora = {s: load_corpus(wanted, spoken, split=s).speech for s in ("train", "validation")}
    names = {split: {one.path.stem for one in speech} for split, speech in corpora.items()}
    assert names["train"] | names["validation"] == {f"2-9-{i:04d}" for i in range(20)}
    assert not names["train"] & names["validation"]
    assert names["validation"]


def test_all_speakers_train_where_the_recipe_says_so(spoken):
    wanted = recipe(speech=[speech(speakers="all")])
    speakers = {o.path.stem[0] for o in load_corpus(wanted, spoken, split="train").speech}
    assert speakers == {"1", "2"}


@pytest.fixture
def recognized(words):
    """Eight speakers without transcripts, ten recordings each, whose names differ by folder."""
    lines = []
    for speaker in "abcdefgh":
        for i in range(10):
            write(words / "recognized" / speaker / f"{i}.flac", seconds=1.0)
            said = (("SO", 0.0, 0.2), ("NO" if i == 9 else "YEAR", 0.2, 0.6))
            one = AlignedUtterance(f"{speaker}/{i}", speaker, said)
            lines.append(msgspec.json.encode(one) + b"\n")
    (words / "recognized.jsonl").write_bytes(b"".join(lines))
    return words


@pytest.mark.parametrize("alignment", ["recognized.jsonl", None])
def test_of_every_four_speakers_two_train(recognized, alignment):
    quarters = SpeechCorpus(path="recognized", alignment=alignment, speakers="quarters")
    wanted = recipe(speech=[quarters])
    splits = [load_corpus(wanted, recognized, split=s).speech for s in ("train", "validation")]
    assert len(splits[0]) + len(splits[1]) == 40
    for utterances in splits:
        assert {one.path.parent.name for one in utterances} == {"a", "b", "e", "f"}
        assert all(bool(one.words) == bool(alignment) for one in utterances)
    if alignment:
        said = {one.path.name: one.words[1][0] for one in (*splits[0], *splits[1])}
        assert (said["9.flac"], said["3.flac"]) == ("no", "year")


def test_words_of_speech_are_in_samples_and_small_letters(spoken):
    one = load_corpus(recipe(speech=[speech()]), spoken, split="train").speech[0]
    assert one.words == (("so", 0, 3200), ("yes", 3200, 9600), ("no", 10_400, 11_200))


def test_keywords_are_cut_out_of_speech_unless_they_are_too_short(spoken):
    corpus = load_corpus(recipe(speech=[speech(word_weight=2.0)]), spoken, split="train")
    cut = [clip for clip in corpus.clips["yes"] if clip.span]
    assert len(cut) == len(corpus.speech) > 0
    assert not any(clip.span for clip in corpus.clips["no"])
    (one, *_), (utterance, *_) = cut, corpus.speech
    assert (one.span, one.weight) == ((800, 7200), 2.0)
    assert np.array_equal(one.samples, utterance.samples[2400:10_400])


def test_a_weight_of_zero_leaves_keywords_in_speech(spoken):
    corpus = load_corpus(recipe(speech=[speech(word_weight=0.0)]), spoken, split="train")
    assert not any(clip.span for clip in corpus.clips["yes"])


def test_an_alignment_that_is_missing_is_made_first(spoken, monkeypatch):
    path = spoken / "alignment.jsonl"
    lines = path.read_bytes()
    path.unlink()
    asked = []

    def align(corpus, out, *, half, **_):
        asked.append((corpus, half))
        out.write_bytes(lines)
        return module.AlignSummary(40, 0, {})

    monkeypatch.setattr(module, "align", align)
    for _ in range(2):
        assert load_corpus(recipe(speech=[speech()]), spoken, split="train").speech
    assert asked == [(spoken / "speech", "first")]


def test_an_alignment_that_cannot_be_made_is_an_error(spoken):
    (spoken / "alignment.jsonl").unlink()
    for transcript in spoken.rglob("*.trans.txt"):
        transcript.unlink()
    with pytest.raises(ConfigError, match=r"^A speech corpus must hold \*\.trans\.txt files "):
        load_corpus(recipe(speech=[speech()]), spoken, split="train")


def test_a_folder_for_each_speaker_within_a_word_holds_clips_of_the_word(tmp_path):
    """A keyword's clips were unknown words called `anna` and `bert`."""
    speakers = {split: speaker_of(split) for split in SPLITS}
    for name in speakers.values():
        for i in range(2):
            write(tmp_path / "words" / "yes" / name / f"{i}.wav")
            write(tmp_path / "words" / "tree" / name / f"{i}.wav")
    for split in SPLITS:
        corpus = load_corpus(recipe(keywords=["yes"]), tmp_path, split=split)
        assert [clip.word for clip in corpus.clips["yes"]] == ["yes"] * 2
        assert [clip.word for clip in corpus.clips[UNKNOWN]] == ["tree"] * 2
        used = {clip.path.parent.name for clips in corpus.clips.values() for clip in clips}
        assert used == {speakers[split]}


def test_a_decomposed_folder_is_of_the_composed_keyword(tmp_path):
    """Folders from a Mac are NFD, what is typed is NFC."""
    for split in SPLITS:
        write(tmp_path / "words" / "gru\u0308n" / f"{speaker_of(split)}_nohash_0.wav")
    for keyword in ("gr\u00fcn", "gru\u0308n"):
        corpus = load_corpus(recipe(keywords=[keyword]), tmp_path, split="train")
        assert [clip.word for clip in corpus.clips["gr\u00fcn"]] == ["gr\u00fcn"]


def test_a_file_whose_name_is_not_utf8_is_left_out_and_said(words, caplog):
    bad = Path(os.fsdecode(os.fsencode(words / "words" / "yes") + b"/gr\xfcn_nohash_0.wav"))
    write(words / "other.wav").rename(bad)
    for split in SPLITS:
        corpus = load_corpus(recipe(), words, split=split)
        assert len(corpus.clips["yes"]) == 1
    said = (
        f"left out: The name of a file must be UTF-8. Received: {words / 'words' / 'yes'}"
        f"/gr\\udcfcn_nohash_0.wav. Rename it."
    )
    assert said in caplog.messages
