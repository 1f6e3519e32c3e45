"""All audio of a request is brought into the workspace, once."""

import pytest

from kws.errors import ConfigError
from kws_train.own_word import prepare as preparation
from kws_train.own_word.prepare import (
    divide_speech,
    find_speech,
    n_test_recordings,
    prepare_audio,
)
from kws_train.own_word.workspace import Request, Workspace
from tests.kws_train.own_word.audio import names, silence, voice, write


@pytest.fixture
def request_(tmp_path, monkeypatch):
    """Ten recordings of a phrase, and a minute of speech; no noise, no voices."""
    monkeypatch.setattr(preparation, "_N_CUT_WORDS", 5)
    for i in range(10):
        write(tmp_path / "robot" / f"{i}.wav", silence(0.3), voice(0.6, seed=i), silence(0.3))
    write(tmp_path / "radio" / "show.flac", *[voice(10)] * 6)
    return Request(phrases=("Robot",), recordings=tmp_path / "robot", speech=(tmp_path / "radio",))


def test_recordings_alone_are_completed_by_words_of_speech_and_noise(request_, tmp_path):
    lines: list[str] = []
    workspace = Workspace(tmp_path / "work", notify=lines.append)
    workspace.begin(request_)
    prepare_audio(request_, workspace, speak=None)
    assert n_test_recordings(request_, workspace) == 2
    assert len(names(workspace.other_words / "cut")) == 5
    assert names(workspace.noise / "test") == ["brown.flac", "pink.flac", "white.flac"]
    speech = find_speech(request_, workspace)
    assert [one.path for one in speech.corpora] == [str(workspace.speech / "train")]
    assert [path.name for path in speech.test] == ["radio-00000-00004.flac"]
    assert lines == [
        f"recordings of robot in {tmp_path / 'robot'}: 7 for train, 1 for validation, 2 for test",
        "no noise given: white, pink and brown noise are used",
    ]


def test_a_second_preparation_changes_nothing(request_, tmp_path):
    workspace = Workspace(tmp_path / "work", notify=lambda _: None)
    workspace.begin(request_)
    prepare_audio(request_, workspace, speak=None)
    before = {path: path.stat().st_mtime_ns for path in workspace.folder.rglob("*.flac")}
    prepare_audio(request_, workspace, speak=None)
    assert {path: path.stat().st_mtime_ns for path in workspace.folder.rglob("*.flac")} == before


def test_without_speech_there_must_be_voices(request_, tmp_path):
    workspace = Workspace(tmp_path / "work", notify=lambda _: None)
    workspace.begin(request_)
    without = Request(phrases=request_.phrases, recordings=request_.recordings)
    with pytest.raises(ConfigError, match="Received: none, and no voice to make it"):
        prepare_audio(without, workspace, speak=None)


def test_speakers_of_librispeech_set_thresholds_or_train(tmp_path):
    corpus = tmp_path / "libri"
    for speaker in range(100, 116):
        folder = corpus / str(speaker) / "1"
        write(folder / f"{speaker}-1-0000.flac", voice(1.0))
        write(folder / f"{speaker}-1-0001.flac", voice(1.0))
        said = f"{speaker}-1-0000 GOOD DAY\n{speaker}-1-0001 THE ROBOT\n"
        (folder / f"{speaker}-1.trans.txt").write_text(said, encoding="utf-8")
    request = Request(phrases=("Robot",), speech=(corpus,))
    workspace = Workspace(tmp_path / "work", notify=lambda _: None)
    divided = divide_speech(request, workspace)
    speakers = [{path.name[:3] for path in one} for one in (divided.training, divided.thresholds)]
    assert speakers == [{"100", "101", "102", "104", "105", "106"}, {"103", "107"}]
    assert all(path.stem.endswith("0000") for path in divided.training), "nobody says the phrase"
    tested = {path.name[:3] for path in find_speech(request, workspace).test}
    assert tested == {str(name) for name in range(108, 116)}
