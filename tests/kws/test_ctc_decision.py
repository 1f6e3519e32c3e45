import re

import numpy as np
import pytest

from kws.config import DecisionSettings
from kws.ctc_decision import PhraseDecision, phrases_for
from kws.errors import ConfigError
from kws.manifest import DecisionDefaults, FeatureSettings, Manifest

LABELS = ("_silence_", "_unknown_", "one", "two", "three")
KEYWORDS = LABELS[2:]


def rows(spelt, *, sure=0.98):
    """Give an output a character: `.` silence, `u` unknown, 1 2 3 the words."""
    for character in spelt:
        row = np.full(5, (1 - sure) / 4, np.float32)
        row[".u123".index(character)] = sure
        yield row


def heard(spelt, *, threshold=0.3, n_pause=4, **options):
    thresholds = dict.fromkeys(KEYWORDS, threshold)
    decision = PhraseDecision(LABELS, thresholds=thresholds, n_pause=n_pause, **options)
    hits = [decision.step(row) for row in rows(spelt)]
    return [(i, hit.keyword) for i, hit in enumerate(hits) if hit]


def manifest(**decision):
    return Manifest(
        name="count",
        labels=LABELS,
        kind="step",
        features=FeatureSettings(),
        n_frames=2,
        hop_frames=2,
        decision=DecisionDefaults(**({"kind": "ctc"} | decision)),
    )


def test_a_sequence_is_heard_when_the_pause_behind_it_is_over():
    assert heard("...11.2..33....") == [(14, "one two three")]


def test_a_pause_too_short_ends_nothing():
    assert heard("..1...2....") == [(10, "one two")]
    assert heard("..1....2....") == [(6, "one"), (11, "two")]


def test_a_repeated_word_is_two_words_if_a_blank_is_between():
    assert heard(".11.1....") == [(8, "one one")]
    assert heard(".111....") == [(7, "one")]


def test_unknown_words_divide_and_the_longest_part_counts():
    assert heard(".1.u.2.3....") == [(11, "two three")]
    assert heard(".u..u....") == []


def test_a_word_that_no_output_takes_for_likelier_than_silence_is_heard_over_all_of_them():
    faint = np.array([0.55, 0.01, 0.42, 0.01, 0.01], np.float32)
    decision = PhraseDecision(LABELS, thresholds=dict.fromkeys(KEYWORDS, 0.3), n_pause=4)
    hits = [decision.step(row) for row in (*rows(".."), *[faint] * 4, *rows("...."))]
    assert [hit.keyword for hit in hits if hit] == ["one"]


def test_with_phrases_only_they_are_heard_the_longest_first():
    phrases = ["two", "one two"]
    assert heard(".1.2.3....", phrases=phrases) == [(9, "one two")]
    assert heard(".2.1....", phrases=phrases) == [(7, "two")]
    assert heard(".1.u.2....", phrases=["one two"]) == []


def test_what_is_not_sure_enough_is_not_heard():
    decision = PhraseDecision(LABELS, thresholds=dict.fromkeys(KEYWORDS, 0.9), n_pause=4)
    hits = [decision.step(row) for row in rows(".1.2....", sure=0.8)]
    assert hits == [None] * 8
    assert heard(".1.2....", threshold=0.6) == [(7, "one two")]


def test_the_score_is_the_posterior_of_the_sequence_and_the_hit_says_where_it_was():
    decision = PhraseDecision(LABELS, thresholds=dict.fromkeys(KEYWORDS, 0.3), n_pause=4)
    hits = [hit for hit in map(decision.step, rows("..11.2....", sure=0.98)) if hit]
    (hit,) = hits
    assert 0.8 < hit.score < 1.0
    assert (hit.n_since_start, hit.n_since_end) == (8, 4)


def rejected(spelt, *, sure=0.98, threshold=0.99, **options):
    thresholds = dict.fromkeys(KEYWORDS, threshold)
    decision = PhraseDecision(LABELS, thresholds=thresholds, n_pause=4, **options)
    found = []
    for i, row in enumerate(rows(spelt, sure=sure)):
        hit = decision.step(row)
        found += [(i, hit.keyword)] if hit else []
        if one := decision.rejected:
            found.append((i, one.keyword, round(one.score, 2), one.n_since_start, one.n_since_end))
    return found


def test_a_sequence_that_is_not_sure_enough_is_told_as_rejected_once():
    assert rejected(".1.2........", sure=0.8) == [(7, "one two", 0.21, 7, 4)]
    assert rejected(".1.2........", threshold=0.3) == [(7, "one two")]
    assert rejected("............") == []
    (one,) = rejected(".u..........")
    assert one[2] < 0.05


def test_the_best_sequence_with_a_phrase_in_it_is_told_as_rejected():
    unsure = [*rows(".1."), np.array([0.02, 0.02, 0.02, 0.4, 0.54], np.float32), *rows("....")]
    thresholds = dict.fromkeys(KEYWORDS, 0.3)
    decision = PhraseDecision(LABELS, thresholds=thresholds, phrases=["one two"], n_pause=4)
    assert [decision.step(row) for row in unsure] == [None] * len(unsure)
    assert decision.rejected.keyword == "one two"
    assert 0.3 < decision.rejected.score < 0.4


def test_an_endless_utterance_is_decoded_all_the_same():
    assert heard("1.2." * 10, n_longest=8)[0] == (7, "one two one two")


def test_a_gap_in_the_posteriors_forgets_the_utterance():
    decision = PhraseDecision(LABELS, thresholds=dict.fromkeys(KEYWORDS, 0.3), n_pause=4)
    before = [decision.step(row) for row in rows(".1.2")]
    decision.restart()
    decision.skip(50)
    after = [decision.step(row) for row in rows(".3....")]
    assert [hit.keyword for hit in (*before, *after) if hit] == ["three"]


def test_the_pause_is_counted_in_the_models_outputs():
    decision = PhraseDecision.of(
        manifest(pause_ms=100), thresholds=dict.fromkeys(KEYWORDS, 0.3), n_outputs=1
    )
    hits = [decision.step(row) for row in rows(".1.......")]  # 20 ms to an output
    assert [i for i, hit in enumerate(hits) if hit] == [6]


def test_the_users_phrases_go_before_the_models():
    assert phrases_for(DecisionSettings(), manifest(phrases=("one two",))) == ("one two",)
    wanted = DecisionSettings(phrases=["three  two"])
    assert phrases_for(wanted, manifest(phrases=("one two",))) == ("three two",)


def test_a_phrase_of_unknown_words_is_refused():
    message = (
        "`[decision] phrases` must be made of words of the model `count`. Received: `one four`. "
        "It knows: one, two, three."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        phrases_for(DecisionSettings(phrases=["one four"]), manifest())


def test_phrases_need_a_model_that_hears_sequences():
    message = (
        "`[decision] phrases` needs a model of word sequences. Received: `count`, a model of "
        "single words. Choose another model, or remove the key."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        phrases_for(DecisionSettings(phrases=["one"]), manifest(kind="words"))


@pytest.mark.parametrize("phrase", ["", "one four"])
def test_a_manifest_with_phrases_of_other_words_is_refused(phrase):
    with pytest.raises(ValueError, match="phrases must be made of keywords of the model"):
        manifest(phrases=(phrase,))
