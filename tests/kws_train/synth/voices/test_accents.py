"""What accents do to phonemes."""

import numpy as np

from kws_train.synth.voices.accents import N_ACCENTS, apply_accent, draw_accent, split_accent

COMPUTER = "kəmpjˈuːɾɚ"


def test_an_accent_says_the_same_phoneme_the_same_way_everywhere():
    for number in range(N_ACCENTS):
        assert apply_accent(COMPUTER * 3, number) == apply_accent(COMPUTER, number) * 3
        assert apply_accent("ˌɚ ", number).endswith(" ")


def test_accents_differ_and_leave_most_phonemes_as_they_are():
    said = [apply_accent(COMPUTER, number) for number in range(N_ACCENTS)]
    assert len(set(said)) > 200
    kept = sum(all(one in word for one in "kmp") for word in said)
    assert kept > 0.8 * N_ACCENTS
    assert 0.05 < said.count(COMPUTER) / N_ACCENTS < 0.5
    for ending in ("ɚ", "ə", "eɾ", "əɹ"):
        assert any(word.endswith(ending) for word in said)


def test_what_is_no_phoneme_stays():
    assert all(apply_accent("?!., ~", number) == "?!., ~" for number in range(50))


def test_a_name_gives_back_the_voice_and_the_accent():
    drawn = {draw_accent("af_bella", np.random.default_rng(i)) for i in range(50)}
    assert {split_accent(name)[0] for name in drawn} == {"af_bella"}
    assert split_accent("many#7~0") == ("many#7", 0)
    assert split_accent("o~1dd#7") == ("o~1dd#7", None)
