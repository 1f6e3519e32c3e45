"""Misses and false alarms are counted in the groups they belong to."""

import re

import pytest

from kws.errors import ConfigError
from kws_train.evaluate.groups import read_metadata, score_groups
from kws_train.evaluate.stream import evaluate_stream
from kws_train.evaluate.stream_results import process_streams
from kws_train.evaluate.tables import stream_table

TABLE = "speaker,gender,accent\na,female,Irish\nb,male,\n"


def rows(groups, by):
    return {one.value: one for one in groups if one.by == by}


def test_keywords_and_their_false_alarms_are_counted_apart(pitch, tones):
    groups = evaluate_stream(process_streams(pitch, [tones])).groups
    usual = [one for one in groups if one.threshold == 0.5]
    keywords = rows(usual, "keyword")
    assert (keywords["go"].n_words, keywords["go"].miss_rate, keywords["go"].n_false) == (6, 0.0, 2)
    assert (keywords["stop"].miss_rate, keywords["stop"].n_false) == (1.0, 0)
    assert keywords["go"].fa_per_hour == pytest.approx(2 / (tones.duration_s / 3600))


def test_false_alarms_on_the_background_are_counted_by_who_speaks(tmp_path, pitch, tones):
    (tmp_path / "speech" / "SPEAKERS.TXT").write_text(";ID |SEX\n1 | F | dev | 8 | Somebody\n")
    pitch.step = lambda frames: [[0.0, 0.0, 1.0, 0.0]] if frames.mean() > 3 else [[1.0, 0, 0, 0]]
    results = process_streams(pitch, [tones])
    groups = evaluate_stream(results).groups
    (female,) = rows([one for one in groups if one.threshold == 0.5], "background").values()
    assert female.value == "female"
    # Every utterance sets this model off once; the clips between are hits or taken for a word.
    assert female.n_false == len(tones.background)
    assert female.hours == pytest.approx(sum(p.end_s - p.start_s for p in tones.background) / 3600)
    assert female.miss_rate is None


def test_a_table_puts_clips_into_groups(tmp_path, pitch, tones):
    (tmp_path / "groups.csv").write_text(TABLE, encoding="utf-8")
    scores = evaluate_stream(
        process_streams(pitch, [tones]), metadata=read_metadata(tmp_path / "groups.csv")
    )
    usual = [one for one in scores.groups if one.threshold == 0.5]
    assert rows(usual, "gender")["female"].n_words == 8
    assert rows(usual, "gender")["female"].miss_rate == pytest.approx(2 / 8)
    assert set(rows(usual, "accent")) == {"Irish"}
    assert "by accent" in stream_table(scores)


def test_clips_can_be_named_by_path(tmp_path, tones):
    (tmp_path / "groups.csv").write_text("path,age\ngo/a_nohash_0.wav,child\n", encoding="utf-8")
    metadata = read_metadata(tmp_path / "groups.csv")
    assert metadata.of(tones.clips[0]) == {"age": "child"}
    assert metadata.of(tmp_path / "no" / "a_nohash_0.wav") == {}
    assert score_groups([], [], threshold=0.5, metadata=metadata) == []


@pytest.mark.parametrize(
    ("text", "columns"), [("word,sex\n", "word, sex"), ("path\n", "path"), ("", "none")]
)
def test_a_table_without_its_columns_is_refused(tmp_path, text, columns):
    path = tmp_path / "groups.csv"
    path.write_text(text, encoding="utf-8")
    message = (
        f"A table of groups must have a column `path` or `speaker`, and one of groups. "
        f"Received: {columns} in {path}. Add a line of headings."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_metadata(path)
