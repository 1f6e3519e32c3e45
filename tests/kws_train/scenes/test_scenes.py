"""Scenes of square waves: their pitch says which word it is, and no sample of theirs is zero."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sounds import RATE_HZ, square

from kws.errors import ConfigError
from kws.manifest import SILENCE, UNKNOWN, FeatureSettings
from kws_train.data.corpus import Clip, Corpus, Spoken
from kws_train.recipe import AugmentRecipe, DataRecipe
from kws_train.scenes.acoustics import Acoustics
from kws_train.scenes.scenes import Scenes

LABELS = [SILENCE, UNKNOWN, "yes", "no"]
PITCHES_HZ = {"other": 400, "yes": 1000, "no": 2000}
KEYWORD_IN_SPEECH_HZ = 4000
DATA = DataRecipe(keywords=["yes", "no"], words=[], homophones={"no": ["know"]})
BARE = AugmentRecipe(
    speech_share=0.0,
    silence_share=0.0,
    context_share=0.0,
    speech_word_share=0.0,
    noise_share=0.0,
    room_share=0.0,
    cut_share=0.0,
    speed=(1.0, 1.0),
    gain_db=(0.0, 0.0),
)


def clip(word, *, span=(3000, 9000)):
    """A word in one second of digital silence."""
    samples = np.zeros(RATE_HZ, np.int16)
    samples[3000:9000] = square(PITCHES_HZ[word], 6000)
    label = word if word in DATA.keywords else UNKNOWN
    return Clip(label, word, Path(f"{word}.wav"), samples, span=span)


def corpus(*, speech=(), noise=(), span=(3000, 9000)):
    clips = {label: [] for label in ("yes", "no", UNKNOWN)}
    for word in PITCHES_HZ:
        one = clip(word, span=span)
        clips[one.label].append(one)
    return Corpus(clips, list(speech), list(noise), [])


def scenes(material=None, *, data=DATA, mined=(), **changes):
    return Scenes(
        material or corpus(),
        data,
        msgspec.structs.replace(BARE, **changes),
        labels=LABELS,
        features=FeatureSettings(window_samples=480),
        time_stride=2,
        mined=mined,
    )


def make(maker, seed):
    return maker.make(np.random.default_rng(seed))


def pitch_hz(samples):
    return np.count_nonzero(np.diff(np.signbit(samples))) / len(samples) * RATE_HZ / 2


def words_of(scene):
    """Return the words heard in a scene as (label, start, end)."""
    sounding = np.flatnonzero(scene.samples)
    breaks = np.flatnonzero(np.diff(sounding) > 100)
    starts = sounding[np.concatenate(([0], breaks + 1))]
    ends = sounding[np.concatenate((breaks, [len(sounding) - 1]))] + 1
    found = []
    for start, end in zip(starts, ends, strict=True):
        heard = pitch_hz(scene.samples[start:end])
        word = min(PITCHES_HZ, key=lambda word: abs(PITCHES_HZ[word] - heard))
        found.append((LABELS.index(word) if word in LABELS else 1, int(start), int(end)))
    return found


def single_words(maker, n=40):
    """Make scenes and keep those with one word: (scene, label, start, end)."""
    made = [make(maker, seed) for seed in range(n)]
    return [(scene, *words_of(scene)[0]) for scene in made if len(words_of(scene)) == 1]


@pytest.fixture(scope="module")
def single():
    return single_words(scenes())


def test_words_of_all_kinds_come_alone_and_in_pairs(single):
    assert {label for _, label, _, _ in single} == {1, 2, 3}
    assert 10 < len(single) < 35


def test_only_the_word_is_right_from_100_to_320_ms_after_its_end(single):
    maker = scenes()
    for scene, label, _, end in single:
        late_ms = (maker.output_ends - end) / 16
        must = (late_ms >= 100) & (late_ms < 320)
        assert 10 <= must.sum() <= 12
        wanted = np.eye(4, dtype=np.uint8)[label]
        assert np.array_equal(scene.targets.allowed[must], np.tile(wanted, (must.sum(), 1)))


def test_an_answer_weighs_more_than_silence(single):
    maker = scenes()
    for scene, _, _, end in single:
        late_ms = (maker.output_ends - end) / 16
        must = (late_ms >= 100) & (late_ms < 320)
        assert np.array_equal(scene.targets.weight, np.where(must, 4.0, 1.0).astype(np.float32))


def test_from_60_ms_before_a_words_end_until_480_ms_after_it_an_answer_is_allowed(single):
    maker = scenes()
    for scene, label, _, end in single:
        late_ms = (maker.output_ends - end) / 16
        may = (late_ms >= -60) & (late_ms < 480)
        must = (late_ms >= 100) & (late_ms < 320)
        assert np.array_equal(scene.targets.allowed[:, label], may.astype(np.uint8))
        assert np.array_equal(scene.targets.allowed[:, 0], (~must).astype(np.uint8))


def test_no_other_label_is_ever_right_beside_a_lone_word(single):
    for scene, label, _, _ in single:
        others = [other for other in (1, 2, 3) if other != label]
        assert not scene.targets.allowed[:, others].any()


def test_every_output_has_something_that_is_right():
    maker = scenes(corpus(speech=[spoken()]), context_share=0.5, speech_share=0.3)
    for seed in range(30):
        assert make(maker, seed).targets.allowed.any(axis=1).all()


def test_a_seed_decides_the_scene():
    maker = scenes(
        corpus(speech=[spoken()], noise=[square(50, 9999)], span=None),
        speech_share=0.3,
        context_share=0.5,
        noise_share=0.7,
        room_share=0.5,
        cut_share=0.3,
        speed=(0.8, 1.2),
        gain_db=(-10.0, 6.0),
    )
    for seed in range(8):
        first, again = make(maker, seed), make(maker, seed)
        assert np.array_equal(first.samples, again.samples)
        assert np.array_equal(first.targets.allowed, again.targets.allowed)
        assert not np.array_equal(first.samples, make(maker, seed + 100).samples)


def spoken(*, n_samples=8 * RATE_HZ, word="yes", at=(4 * RATE_HZ, 4 * RATE_HZ + 8000)):
    """Speech with one word whose pitch is its own."""
    samples = square(250, n_samples)
    samples[slice(*at)] = square(KEYWORD_IN_SPEECH_HZ, at[1] - at[0])
    words = (("before", 0, at[0]), (word, *at), ("after", at[1], n_samples))
    return Spoken(Path("spoken.flac"), samples, words)


@pytest.mark.parametrize(("word", "label"), [("yes", 2), ("no", 3), ("know", 3)])
def test_a_keyword_or_its_homophone_in_speech_may_be_answered(word, label):
    """The utterance is as long as the scene, so that its word lies where it lies there."""
    span = (RATE_HZ, RATE_HZ + 8000)
    speech = spoken(n_samples=round(2.4 * RATE_HZ), word=word, at=span)
    maker = scenes(corpus(speech=[speech]), speech_share=1.0)
    targets = make(maker, 1).targets
    late_ms = (maker.output_ends - span[1]) / 16
    may = (maker.output_ends > span[0]) & (late_ms < 480)
    assert np.array_equal(targets.allowed[:, label], may.astype(np.uint8))
    assert not targets.allowed[:, 5 - label].any()
    assert targets.allowed[:, 0].all(), "and need not be"
    assert set(targets.weight.tolist()) == {1.0}


def test_speech_may_be_called_silence_or_unknown():
    maker = scenes(corpus(speech=[spoken(word="hello")]), speech_share=1.0)
    allowed = make(maker, 1).targets.allowed
    assert np.array_equal(allowed, np.tile(np.uint8([1, 1, 0, 0]), (len(allowed), 1)))


def test_a_keyword_in_context_is_allowed_where_it_is_heard_and_only_there():
    """Around an unknown word; pieces are cut out of an utterance, often beside its keyword."""
    maker = scenes(corpus(speech=[spoken()]), context_share=1.0, keyword_share=0.0)
    n_heard = n_not = n_covered = 0
    for seed in range(120):
        scene = make(maker, seed)
        blocks = scene.samples[: len(scene.samples) // 800 * 800].reshape(-1, 800)
        heard = [i for i, block in enumerate(blocks) if abs(pitch_hz(block) - 4000) < 400]
        may = scene.targets.allowed[:, 2].any()
        if heard:
            n_heard += 1
            assert may
        elif may:
            # Less than two blocks of it, at the edge of a piece, are not sure to be found.
            ends = maker.output_ends[scene.targets.allowed[:, 2] == 1]
            edges = [pitch_hz(block) > 600 for block in blocks]
            # Nor is one under the margin of the unknown word's clip.
            n_covered += not any(edges[max(0, int(ends[0]) // 800 - 2) : int(ends[0]) // 800 + 2])
        else:
            n_not += 1
    assert n_heard > 5
    assert n_not > 5
    assert n_covered < n_heard / 4


def test_a_word_close_to_other_speech_may_be_answered_and_need_not():
    maker = scenes(corpus(speech=[spoken(word="hello")]), context_share=1.0, keyword_share=1.0)
    asked, crowded = 0, 0
    for seed in range(60):
        targets = make(maker, seed).targets
        answers = targets.allowed[:, 2:].any(axis=1)
        if not answers.any():
            continue
        must = answers & (targets.allowed.sum(axis=1) == 1)
        asked += bool(must.any())
        crowded += not must.any()
        assert np.array_equal(targets.weight == 4.0, must)
    assert asked > 10
    assert crowded > 5


def test_around_a_word_context_is_silent_for_a_moment():
    maker = scenes(corpus(speech=[spoken(word="hello")]), context_share=1.0, keyword_share=1.0)
    scene = make(maker, 3)
    assert np.count_nonzero(scene.samples) > 0.5 * len(scene.samples)
    assert scene.targets.allowed[:, 1].any()


def test_a_scene_of_silence_is_silence():
    scene = make(scenes(silence_share=1.0), 1)
    assert not scene.samples.any()
    assert np.array_equal(scene.targets.allowed[:, 0], np.ones(len(scene.targets.allowed)))
    assert not scene.targets.allowed[:, 1:].any()


def test_a_scene_may_fall_into_digital_silence_but_never_within_its_last_word():
    maker = scenes(corpus(noise=[square(50, 9999)]), cut_share=1.0, noise_share=1.0)
    whole = scenes(corpus(noise=[square(50, 9999)]), cut_share=0.0, noise_share=1.0)
    n_cut = 0
    for seed in range(20):
        scene, uncut = make(maker, seed), make(whole, seed)
        n_left = int(np.flatnonzero(scene.samples)[-1]) + 1
        assert np.array_equal(scene.samples[:n_left], uncut.samples[:n_left])
        n_cut += n_left < len(scene.samples) - 1
        answers = np.flatnonzero(scene.targets.weight > 1)
        if len(answers):
            assert n_left >= maker.output_ends[answers[-1]] - 0.28 * RATE_HZ
    assert n_cut > 10


@pytest.fixture(scope="module")
def clips():
    """Scenes of one clip each: (scene, label, start, end)."""
    return single_words(scenes(corpus(span=None), clip_share=1.0, cut_share=1.0), n=60)


def test_a_clip_lies_anywhere_in_the_first_second_and_then_there_is_nothing(clips):
    assert {label for _, label, _, _ in clips} == {1, 2, 3}
    assert len(clips) == 60
    for _, _, start, end in clips:
        assert (end - start) == pytest.approx(6000, abs=2)
        assert 0 <= start < end <= RATE_HZ
    assert np.ptp([start for _, _, start, _ in clips]) > 3000
    noisy = scenes(corpus(span=None, noise=[square(100, RATE_HZ)]), clip_share=1.0, noise_share=1.0)
    heard = make(noisy, 1).samples
    assert np.count_nonzero(heard[:RATE_HZ]) > 0.9 * RATE_HZ
    assert not heard[RATE_HZ:].any()


def test_the_word_of_a_clip_is_asked_for_from_its_middle_until_a_third_of_a_second_later(clips):
    ends = scenes().output_ends
    for scene, label, start, end in clips:
        allowed, weight = scene.targets.allowed, scene.targets.weight
        first = int(np.flatnonzero(allowed[:, label])[0])
        assert abs(ends[first] - (start + end) / 2) <= 640  # 20 ms of energy, 20 of an output
        last = int(np.flatnonzero(allowed[:, label] & ~allowed[:, 0])[-1])
        assert (ends[last] - end) / RATE_HZ == pytest.approx(0.31, abs=0.04)
        asked = (ends >= ends[first]) & (ends <= ends[last])
        grace = (ends > ends[last]) & (ends < ends[last] + 0.17 * RATE_HZ)
        assert (allowed[asked] == np.eye(4, dtype=np.uint8)[label]).all()
        assert (allowed[grace] == np.eye(4, dtype=np.uint8)[[0, label]].sum(axis=0)).all()
        assert (allowed[~asked & ~grace] == [1, 0, 0, 0]).all()
        assert weight[asked].sum() == pytest.approx(4 * 11)
        assert (weight[~asked] == 1).all()


@pytest.mark.parametrize("share", ["room_share", "microphone_share"])
def test_only_synthetic_clips_are_put_into_rooms_and_recorded_anew(share):
    material = corpus()
    for real in (True, False):
        for clips in material.clips.values():
            clips[:] = [replace(clip, real=real) for clip in clips]
        plain = scenes(material, clip_share=1.0)
        changed = scenes(material, clip_share=1.0, **{share: 1.0})
        same = [
            np.array_equal(make(plain, seed).samples, make(changed, seed).samples)
            for seed in range(5)
        ]
        assert same == [real] * 5


def test_a_clip_may_be_noise_alone_which_is_silence():
    noise = [square(100, RATE_HZ)]
    maker = scenes(corpus(noise=noise), clip_share=1.0, silence_share=1.0, noise_share=0.0)
    for seed in range(5):
        scene = make(maker, seed)
        assert pitch_hz(scene.samples[:RATE_HZ]) == pytest.approx(100, rel=0.05)
        assert not scene.samples[RATE_HZ:].any()
        assert (scene.targets.allowed == [1, 0, 0, 0]).all()


def test_a_clip_may_begin_within_itself_but_not_within_its_word():
    """A word that fills its clip but for 50 ms at the front is heard whole."""
    material = corpus()
    whole = square(PITCHES_HZ["yes"], RATE_HZ)
    whole[:800] = 0
    material.clips["yes"][0] = Clip("yes", "yes", Path("yes.wav"), whole, real=False)
    maker = scenes(material, clip_share=1.0, keyword_share=1.0)
    ends = []
    for seed in range(40):
        loud = np.flatnonzero(np.abs(make(maker, seed).samples) > 300)
        if len(loud) > 12_000:  # `no` is shorter
            assert loud[-1] - loud[0] == pytest.approx(15_200, abs=200)  # faded at its ends
            ends.append(loud[-1])
    assert min(ends) < RATE_HZ - 400
    assert max(ends) > RATE_HZ - 200


def test_words_are_of_one_level_before_noise_and_gain(single):
    for scene, _, start, end in single:
        rms = np.sqrt(np.mean(scene.samples[start:end] ** 2))
        assert -6.5 < 20 * np.log10(rms / 2000) < 3.5


def test_noise_has_the_ratio_asked_for():
    maker = scenes(
        corpus(noise=[square(50, 9999)]), silence_share=1.0, noise_share=1.0, snr_db=(10.0, 10.0)
    )
    rms = np.sqrt(np.mean(make(maker, 1).samples ** 2))
    assert 20 * np.log10(2000 / rms) == pytest.approx(10, abs=0.01)


def test_samples_never_leave_the_range_of_16_bits():
    maker = scenes(gain_db=(40.0, 40.0))
    for seed in range(5):
        samples = make(maker, seed).samples
        assert samples.dtype == np.float32
        assert samples.min() == -32768
        assert samples.max() == 32767


def test_the_background_of_a_clip_is_used_where_its_word_is_to_be_found():
    """A clip cut out of speech has no background of its own; one recorded alone has."""
    quiet = [make(scenes(silence_share=1.0), seed).samples.any() for seed in range(10)]
    material = corpus(span=None)
    for clips in material.clips.values():
        clips[0].samples[:] += 20
    toned = [make(scenes(material, silence_share=1.0), seed).samples.any() for seed in range(10)]
    assert not any(quiet)
    assert {*toned} == {True, False}


ADDED = ["change_voice", "add_babble", "record"]


def test_what_has_no_share_takes_no_random_number(monkeypatch):
    material = corpus(speech=[spoken()], noise=[square(50, 9999)])
    maker = scenes(material, context_share=0.5, noise_share=0.7, room_share=0.5)
    wanted = [make(maker, seed).samples for seed in range(8)]
    for name in ADDED:
        monkeypatch.setattr(Acoustics, name, lambda self, wave, random: wave)
    for seed in range(8):
        assert np.array_equal(make(maker, seed).samples, wanted[seed])


@pytest.mark.parametrize(
    "changes",
    [
        {"pitch_share": 1.0},
        {"babble_share": 1.0, "babble_snr_db": (10.0, 10.0)},
        {"microphone_share": 1.0},
        {"codec_share": 1.0},
        {"room_share": 1.0, "room": "pyroomacoustics", "room_bank": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_disturbed_scene_sounds_different_and_asks_for_the_same(changes):
    material = corpus(speech=[spoken()])
    plain, disturbed = scenes(material), scenes(material, **changes)
    assert disturbed.make(np.random.default_rng(3)).samples.dtype == np.float32
    for seed in range(6):
        first, again = make(disturbed, seed), make(disturbed, seed)
        assert np.array_equal(first.samples, again.samples)
        assert np.isfinite(first.samples).all()
        if "pitch_share" not in changes:  # drawn before the second word, and moves it
            assert np.array_equal(first.targets.allowed, make(plain, seed).targets.allowed)
            assert not np.array_equal(first.samples, make(plain, seed).samples)


def test_a_changed_pitch_is_heard():
    lower = scenes(pitch_share=1.0, pitch_semitones=(-6.0, -6.0), keyword_share=1.0)
    heard = (make(lower, seed) for seed in range(20))
    pitches = {round(pitch_hz(part)) for scene in heard for part in sounding(scene)}
    assert len(pitches) >= 2
    for hz in pitches:
        assert min(abs(hz / wanted - 2**-0.5) for wanted in (1000, 2000)) < 0.05


def sounding(scene):
    """Return the middle half of each loud stretch of a scene."""
    loud = np.flatnonzero(np.abs(scene.samples) > 200)
    for part in np.split(loud, np.flatnonzero(np.diff(loud) > 300) + 1):
        quarter = (part[-1] - part[0]) // 4
        yield scene.samples[part[0] + quarter : part[-1] - quarter]


def test_babble_lies_as_far_below_speech_as_asked():
    share = {"silence_share": 1.0, "babble_share": 1.0}
    for snr_db in (0.0, 20.0):
        maker = scenes(corpus(speech=[spoken()]), babble_snr_db=(snr_db, snr_db), **share)
        rms = np.sqrt(np.mean(make(maker, 1).samples ** 2))
        assert rms == pytest.approx(2000 / 10 ** (snr_db / 20), rel=0.01)


def test_unknown_words_are_listed_with_the_probability_they_are_drawn_with():
    material = corpus(speech=[spoken()])
    material.clips[UNKNOWN] += [
        Clip(UNKNOWN, "tree", Path(f"{i}.wav"), square(400, RATE_HZ), span=(0, 9000))
        for i in range(4)
    ]
    maker = scenes(material, speech_word_share=0.25)
    rows = {(word, source): (count, share) for word, source, count, share in maker.unknown_words()}
    assert rows[("other", "clip")] == (1, pytest.approx(0.75 / 3))
    assert rows[("tree", "clip")] == (4, pytest.approx(0.75 * 2 / 3))
    assert rows[("before", "speech")] == rows[("after", "speech")] == (1, pytest.approx(0.125))
    assert sum(share for _, share in rows.values()) == pytest.approx(1)


def test_what_is_drawn_agrees_with_the_list_of_unknown_words():
    material = corpus(speech=[spoken()])
    maker = scenes(material, speech_word_share=0.25, keyword_share=0.0).recording_sources()
    random = np.random.default_rng(1)
    for _ in range(400):
        maker._draw(random)
    cut = sum(path.name == "spoken.flac" for path in maker.sources)
    assert len(maker.sources) == 400
    assert cut / 400 == pytest.approx(0.25, abs=0.07)


def test_shares_of_words_are_as_asked():
    maker = scenes(keyword_share=1.0)
    labels = [words_of(make(maker, seed))[0][0] for seed in range(40)]
    assert 1 not in labels
    assert 10 < labels.count(2) < 30


@pytest.mark.parametrize(
    ("gone", "received"), [((UNKNOWN,), "2 and 0"), (("yes", "no"), "0 and 1")]
)
def test_a_split_without_keywords_or_without_other_words_is_refused(gone, received):
    material = corpus()
    for label in gone:
        material.clips[label].clear()
    message = (
        f"Every split must have clips of keywords and of other words. Received: {received}. "
        f"Add clips of more speakers to the recipe's `[[data.words]]`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        scenes(material)


def test_speech_is_drawn_around_mined_moments():
    """The tone of the mined moment is in every scene, that of the rest of the speech in few."""
    speech = spoken(n_samples=60 * RATE_HZ, at=(40 * RATE_HZ, 40 * RATE_HZ + 8000))
    mined = [(speech, 40 * RATE_HZ + 4000)]
    heard = {0.0: 0, 1.0: 0}
    for share in heard:
        maker = scenes(corpus(speech=[speech]), mined=mined, speech_share=1.0, mined_share=share)
        for seed in range(20):
            samples = make(maker, seed).samples
            blocks = samples[: len(samples) // 800 * 800].reshape(-1, 800)
            heard[share] += any(abs(pitch_hz(block) - 4000) < 1200 for block in blocks)
    assert heard[0.0] < 6
    assert heard[1.0] == 20
