import logging
import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

from kws.errors import ConfigError
from kws_train.data import align as module
from kws_train.data.align import AlignedUtterance, align, alignment_at_hand, read_alignment

LIBRISPEECH = Path(__file__).parents[2] / "data" / "librispeech"
RECORDING = LIBRISPEECH / "dev-clean/84/121123/84-121123-0014.opus"
TEXT = "MUST I LEAVE ALONE NO"
NAME = RECORDING.stem
RATE_HZ = 16_000


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path / "corpus")


class Corpus:
    """A LibriSpeech-shaped folder whose utterances are the one recording, or whatever is said."""

    def __init__(self, path):
        self.path = path
        path.mkdir()

    def add(self, utterance, text=TEXT, *, audio=None):
        speaker, chapter, _ = utterance.split("-")
        folder = self.path / "dev-clean" / speaker / chapter
        folder.mkdir(parents=True, exist_ok=True)
        if audio is None:
            shutil.copy(RECORDING, folder / f"{utterance}.opus")
        elif isinstance(audio, bytes):
            (folder / f"{utterance}.flac").write_bytes(audio)
        elif audio is not False:
            soundfile.write(folder / f"{utterance}.wav", audio, RATE_HZ)
        with (folder / f"{speaker}-{chapter}.trans.txt").open("a", encoding="utf-8") as lines:
            lines.write(f"{utterance} {text}\n")

    def list_speakers(self, *speakers, folder="."):
        lines = ["; a comment", *(f"{name} | F | dev-clean | 8.02 | Somebody" for name in speakers)]
        path = self.path / folder / "SPEAKERS.TXT"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    out = tmp_path_factory.mktemp("aligned") / "alignment.jsonl"
    summary = align(LIBRISPEECH, out)
    assert (summary.n_aligned, summary.n_kept, summary.left_out) == (1, 0, {})
    return out


@pytest.fixture
def decoded(monkeypatch):
    """Names of the utterances that are really worked on, in order."""
    names = []
    real = module._align_one

    def record(decoder, utterance):
        names.append(utterance.name)
        return real(decoder, utterance)

    monkeypatch.setattr(module, "_align_one", record)
    return names


def test_words_come_in_order_and_inside_the_audio(aligned):
    (utterance,) = read_alignment(aligned).values()

    assert (utterance.utterance, utterance.speaker) == (NAME, "84")
    assert [word for word, _, _ in utterance.words] == TEXT.split()
    times = [time_s for _, start_s, end_s in utterance.words for time_s in (start_s, end_s)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= soundfile.info(RECORDING).duration
    assert all(0.03 <= end_s - start_s <= 0.6 for _, start_s, end_s in utterance.words)


def test_silence_is_part_of_no_word(aligned):
    (utterance,) = read_alignment(aligned).values()
    samples, _ = soundfile.read(RECORDING)
    spoken = np.zeros(len(samples), dtype=bool)
    for _, start_s, end_s in utterance.words:
        spoken[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)] = True

    def level_db(which):
        return 10 * np.log10(np.mean(samples[which] ** 2))

    assert level_db(spoken) > level_db(~spoken) + 15
    alone, no = utterance.words[-2:]
    assert no[1] - alone[2] > 0.6
    assert soundfile.info(RECORDING).duration - no[2] > 0.15


def test_a_short_silence_at_the_end_is_not_the_last_words(corpus, tmp_path):
    samples, _ = soundfile.read(RECORDING, dtype="int16")
    corpus.add("84-1-0000", audio=samples[: round(2.625 * RATE_HZ)])
    align(corpus.path, tmp_path / "out.jsonl")

    (utterance,) = read_alignment(tmp_path / "out.jsonl").values()
    assert utterance.words[-1][2] < 2.57


def test_a_line_is_an_utterance_in_plain_json(aligned):
    (line,) = aligned.read_bytes().splitlines()
    content = msgspec.json.decode(line)

    assert list(content) == ["utterance", "speaker", "words"]
    assert content["words"][0][0] == "MUST"


def test_another_pronunciation_keeps_the_words_name():
    class Segment:
        def __init__(self, word, start_frame, end_frame):
            self.word, self.start_frame, self.end_frame = word, start_frame, end_frame

    class Heard:
        def seg(self):
            return [Segment("<sil>", 0, 9), Segment("a(2)", 10, 19), Segment("[NOISE]", 20, 29)]

    assert list(module._spoken(Heard())) == [("A", 0.1, 0.2)]


def test_an_utterance_with_an_unknown_word_is_left_out_and_says_which(corpus, tmp_path, caplog):
    corpus.add("84-1-0000", "MUST I LEAVE XYZZYX ALONE QWFPGJ")
    corpus.add("84-1-0001")
    with caplog.at_level(logging.WARNING, logger="kws.align"):
        summary = align(corpus.path, tmp_path / "out.jsonl")

    assert summary.left_out == {"84-1-0000": "not in the dictionary: xyzzyx, qwfpgj"}
    assert summary.n_aligned == 1
    assert list(read_alignment(tmp_path / "out.jsonl")) == ["84-1-0001"]
    assert caplog.messages == ["left out, not in the dictionary: xyzzyx, qwfpgj: 84-1-0000"]


@pytest.mark.parametrize(
    "text", ["BUT CAN HE UNDERSTAND YOU YES", "I LOOK AT MY WATCH", "NO " * 80]
)
def test_what_was_not_said_is_not_aligned(corpus, tmp_path, text):
    corpus.add("84-1-0000", text)
    summary = align(corpus.path, tmp_path / "out.jsonl")

    assert summary.left_out == {"84-1-0000": "audio and transcript do not match"}
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_audio_that_cannot_be_used_is_listed_and_the_rest_goes_on(corpus, tmp_path):
    corpus.add("84-1-0000", audio=b"this is no FLAC")
    corpus.add("84-1-0001", audio=False)
    corpus.add("84-1-0002", audio=np.zeros((800, 2)))
    corpus.add("84-1-0003", audio=np.zeros(0))
    corpus.add("84-1-0004", audio=np.zeros(16))
    corpus.add("84-1-0005", audio=np.zeros(16_000))
    corpus.add("84-1-0006", "")
    corpus.add("84-1-0007")
    summary = align(corpus.path, tmp_path / "out.jsonl")

    unreadable = summary.left_out.pop("84-1-0000")
    assert re.fullmatch(r"not readable \(Error opening '.*84-1-0000\.flac': .*\)", unreadable)
    assert summary.left_out == {
        "84-1-0001": "no audio beside its transcript",
        "84-1-0002": "not 16 kHz mono, or empty",
        "84-1-0003": "not 16 kHz mono, or empty",
        "84-1-0004": "audio and transcript do not match",
        "84-1-0005": "audio and transcript do not match",
        "84-1-0006": "no words in its transcript",
    }
    assert list(read_alignment(tmp_path / "out.jsonl")) == ["84-1-0007"]


def test_word_times_do_not_depend_on_what_was_aligned_before(corpus, tmp_path, aligned):
    # Loud enough that its noise estimate, carried over, moves a word of the recording.
    hiss = np.random.default_rng(7).normal(0, 9000, 2 * RATE_HZ).astype(np.int16)
    corpus.add("84-1-0000", audio=hiss)
    corpus.add("84-1-0001")
    align(corpus.path, tmp_path / "out.jsonl")

    (alone,) = read_alignment(aligned).values()
    assert read_alignment(tmp_path / "out.jsonl")["84-1-0001"].words == alone.words


def test_going_on_does_nothing_twice(corpus, tmp_path, decoded):
    out = tmp_path / "out.jsonl"
    corpus.add("84-1-0001")
    align(corpus.path, out)
    first = out.read_bytes()
    corpus.add("84-1-0002")
    summary = align(corpus.path, out)

    assert (summary.n_aligned, summary.n_kept) == (1, 1)
    assert decoded == ["84-1-0001", "84-1-0002"]
    assert out.read_bytes().startswith(first)
    assert len(out.read_bytes().splitlines()) == 2

    complete = out.read_bytes()
    summary = align(corpus.path, out)
    assert (summary.n_aligned, summary.n_kept) == (0, 2)
    assert out.read_bytes() == complete


@pytest.mark.parametrize("left_bytes", [1, 30, 90])
def test_a_line_cut_short_by_a_crash_is_done_again(corpus, tmp_path, decoded, left_bytes):
    out = tmp_path / "out.jsonl"
    corpus.add("84-1-0001")
    corpus.add("84-1-0002")
    align(corpus.path, out)
    complete = out.read_bytes()
    out.write_bytes(complete[: complete.index(b"\n") + 1 + left_bytes])
    assert list(read_alignment(out)) == ["84-1-0001"]
    decoded.clear()
    align(corpus.path, out)

    assert decoded == ["84-1-0002"]
    assert out.read_bytes() == complete


def test_a_whole_line_without_its_newline_is_done_again(corpus, tmp_path):
    out = tmp_path / "out.jsonl"
    corpus.add("84-1-0001")
    align(corpus.path, out)
    complete = out.read_bytes()
    out.write_bytes(complete.rstrip(b"\n"))
    align(corpus.path, out)

    assert out.read_bytes() == complete


def test_a_file_of_another_kind_is_not_cut(corpus, tmp_path):
    out = tmp_path / "notes.txt"
    corpus.add("84-1-0001")
    out.write_bytes(b"all that I wrote today")
    with pytest.raises(ConfigError) as error:
        align(corpus.path, out)

    assert str(error.value) == (
        f"An alignment must hold one utterance a line. Received: {out}, whose last line is "
        f"something else. Give another path."
    )
    assert out.read_bytes() == b"all that I wrote today"


def test_progress_is_drawn_on_standard_error(corpus, tmp_path, capsys):
    corpus.add("84-1-0001")
    align(corpus.path, tmp_path / "out.jsonl", progress=True)

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Aligning" in shown.err


@pytest.mark.slow
def test_two_processes_write_what_one_writes(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1)
    for number in range(3):
        corpus.add(f"84-1-000{number}")
    align(corpus.path, tmp_path / "one.jsonl")
    align(corpus.path, tmp_path / "two.jsonl", n_jobs=2)

    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_a_folder_without_transcripts_is_refused(tmp_path):
    with pytest.raises(ConfigError) as error:
        align(tmp_path, tmp_path / "out.jsonl")

    assert str(error.value) == (
        f"A speech corpus must hold *.trans.txt files with audio beside them. Received: {tmp_path} "
        f"with none. Give a folder in LibriSpeech's layout, or have the words recognised: "
        f"`--recognize`."
    )
    assert not (tmp_path / "out.jsonl").exists()


def test_words_are_recognised_where_there_is_no_transcript(tmp_path):
    for name in ("ann/1.opus", "ann/2.opus", "ben.opus"):
        (tmp_path / "speech" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(RECORDING, tmp_path / "speech" / name)
    (tmp_path / "speech" / "cut.wav").write_bytes(b"this is no WAV")
    out = tmp_path / "out.jsonl"
    summary = align(tmp_path / "speech", out, recognize=True)

    assert (summary.n_aligned, summary.n_kept, list(summary.left_out)) == (3, 0, ["cut"])
    known = read_alignment(out)
    assert {name: one.speaker for name, one in known.items()} == {
        "ann/1": "ann", "ann/2": "ann", "ben": "ben.opus",
    }  # fmt: skip
    (alone,) = [word for word in known["ann/1"].words if word[0] == "ALONE"]
    assert alone[1:] == pytest.approx((1.1, 1.5), abs=0.15)
    assert known["ann/1"].words == known["ann/2"].words == known["ben"].words
    assert align(tmp_path / "speech", out, recognize=True).n_kept == 3


def test_speech_of_all_without_transcripts_is_recognised_by_itself(tmp_path, caplog):
    speech = tmp_path / "speech"
    speech.mkdir()
    shutil.copy(RECORDING, speech / "ann.opus")
    path = tmp_path / "words.jsonl"
    with caplog.at_level(logging.WARNING, logger="kws.align"):
        assert list(alignment_at_hand(speech, path, half="all")) == ["ann"]
    assert caplog.messages == [
        f"no word times yet, they are found once: kws align {speech} {path} --recognize"
    ]


def test_a_half_without_a_speaker_is_refused(tmp_path):
    with pytest.raises(ConfigError) as error:
        align(LIBRISPEECH, tmp_path / "out.jsonl", half="first")

    assert str(error.value) == (
        f"A half must have a speaker in it. Received: the first half of {LIBRISPEECH}, which has "
        f"1 in all. Align them with `--half all`."
    )


def test_an_output_that_cannot_be_written_is_refused(tmp_path):
    out = tmp_path / "nowhere" / "out.jsonl"
    with pytest.raises(ConfigError) as error:
        align(LIBRISPEECH, out)

    assert str(error.value) == (
        f"An alignment must go to a file that can be written. Received: {out} "
        f"(No such file or directory). Create its folder, or give another path."
    )


def test_a_missing_alignment_says_how_to_make_it(tmp_path):
    path = tmp_path / "alignment.jsonl"
    with pytest.raises(ConfigError) as error:
        read_alignment(path)

    assert str(error.value) == (
        f"An alignment must be a readable file. Received: {path} (No such file or directory). "
        f"Create it with `kws align CORPUS {path}`."
    )


def test_a_line_that_is_no_utterance_is_refused(tmp_path):
    path = tmp_path / "alignment.jsonl"
    path.write_text('{"utterance": "84-1-0001", "speaker": "84"}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_alignment(path)

    assert str(error.value) == (
        f"An alignment must hold one utterance a line. Received: Object missing required field "
        f"`words` in {path}. Delete the file and create it again with `kws align`."
    )


def test_words_are_read_back_as_they_are_written(tmp_path):
    utterance = AlignedUtterance("84-1-0001", "84", (("GO", 0.12, 0.43), ("ON", 0.43, 0.6)))
    path = tmp_path / "alignment.jsonl"
    path.write_bytes(msgspec.json.encode(utterance) + b"\n")

    assert read_alignment(path) == {"84-1-0001": utterance}


@pytest.mark.parametrize(("half", "names"), [("first", ["2-1-0"]), ("second", ["1-1-0"])])
def test_a_half_is_aligned_alone(corpus, tmp_path, half, names):
    for speaker in ("1", "2"):
        corpus.add(f"{speaker}-1-0")
    corpus.list_speakers("2", "1")
    align(corpus.path, tmp_path / "out.jsonl", half=half)

    assert list(read_alignment(tmp_path / "out.jsonl")) == names


def test_an_alignment_at_hand_is_made_once_and_only_whole(corpus, tmp_path, monkeypatch):
    corpus.add("84-1-0000")
    corpus.add("84-1-0001")
    corpus.list_speakers("84")
    path = tmp_path / "alignment.jsonl"
    real = module._align_one

    def interrupt(decoder, utterance):
        if utterance.name == "84-1-0001":
            raise KeyboardInterrupt
        return real(decoder, utterance)

    monkeypatch.setattr(module, "_align_one", interrupt)
    monkeypatch.setattr(module, "map_corpus", lambda function, items, **_: map(function, items))
    monkeypatch.setattr(module, "_CHUNK", 1)
    with pytest.raises(KeyboardInterrupt):
        alignment_at_hand(corpus.path, path, half="all")
    assert not path.is_file()
    monkeypatch.setattr(module, "_align_one", real)
    made = alignment_at_hand(corpus.path, path, half="all")
    assert set(made) == {"84-1-0000", "84-1-0001"}
    monkeypatch.setattr(module, "align", None)
    assert alignment_at_hand(corpus.path, path, half="all") == made


def test_an_alignment_without_an_utterance_is_not_kept(corpus, tmp_path):
    corpus.add("84-1-0000", "XYZZY")
    corpus.list_speakers("84")
    with pytest.raises(ConfigError, match=r"^An alignment must have an utterance\. Received: 1 in"):
        alignment_at_hand(corpus.path, tmp_path / "alignment.jsonl", half="all")
    assert not (tmp_path / "alignment.jsonl").is_file()
