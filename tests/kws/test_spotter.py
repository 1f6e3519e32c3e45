"""The pipeline with a model that is made of numpy: what it says follows from its frames alone."""

import re
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import silence, tone

from kws.config import DecisionSettings, GateSettings, SourceSettings
from kws.errors import AudioError, ConfigError, FormatError, KwsError, ModelError
from kws.events import Detection, Peak
from kws.features import Features
from kws.manifest import DecisionDefaults, FeatureSettings, Manifest
from kws.model import open_model
from kws.spotter import Spotter, open_for_sources

RATE_HZ = 16_000
FEATURES = FeatureSettings(kind="logmel", n_mels=8, floor=1.0)
OFF = GateSettings(enabled=False)


def manifest(*, hop_frames=2, labels=("_silence_", "low", "high"), **decision):
    defaults = {"threshold": 0.5, "smoothing_ms": 60, "refractory_ms": 300, "word_ms": 600}
    return Manifest(
        name="fake",
        labels=labels,
        kind="step",
        features=FEATURES,
        n_frames=hop_frames,
        hop_frames=hop_frames,
        decision=DecisionDefaults(**(defaults | decision)),
    )


class Ears:
    """Hears low and high sounds: loudness of the lower and upper bands, with a memory."""

    def __init__(self, *, n_outputs=1, **settings):
        self.manifest = manifest(**settings)
        self.n_outputs = n_outputs
        self.calls = []
        self.n_resets = 0
        self.reset()

    def reset(self):
        self.n_resets += 1
        self.memory = np.zeros(3)
        self.calls.append(None)

    def step(self, frames):
        self.calls.append(frames.copy())
        rows = []
        for part in np.split(frames, self.n_outputs):
            low, high = part[:, :4].mean(), part[:, 4:].mean()
            now = np.array([10.0, low, high])
            self.memory = 0.7 * self.memory + 0.3 * now
            powers = np.exp(self.memory - self.memory.max())
            rows.append(powers / powers.sum())
        return np.array(rows, np.float32)

    @property
    def heard(self):
        """All frames since the last reset."""
        since = max(i for i, call in enumerate(self.calls) if call is None)
        return np.concatenate(self.calls[since + 1 :])


class Script:
    """Says what it is told, output by output, whatever it hears."""

    def __init__(self, posteriors, *, n_outputs=1, **settings):
        self.manifest = manifest(**settings)
        self.n_outputs = n_outputs
        self.posteriors = posteriors
        self.reset()

    def reset(self):
        self.at = 0

    def step(self, frames):
        assert frames.shape == (self.manifest.hop_frames, 8)
        rows = np.zeros((self.n_outputs, 3), np.float32)
        for row in rows:
            row[1] = self.posteriors.get(self.at, 0.0)
            self.at += 1
        return rows


class LoudGate:
    """A gate without a memory: open in every 20 ms that hold a loud sample."""

    block_samples = 320

    def __init__(self, settings, *, sample_rate_hz):
        self.reset()

    def reset(self):
        self.pending = np.empty(0, np.int16)

    def onset_sample(self, sample):
        return None

    def process(self, samples):
        self.pending = np.concatenate((self.pending, samples))
        n_blocks = len(self.pending) // 320
        blocks, self.pending = self.pending[: n_blocks * 320], self.pending[n_blocks * 320 :]
        return [bool(b) for b in (np.abs(blocks.reshape(-1, 320)) > 500).any(axis=1)]


@pytest.fixture
def loud_gate(monkeypatch):
    monkeypatch.setattr("kws.spotter.Gate", LoudGate)


def voice(seconds, hz):
    """Harmonics, which the voice detector lets through, unlike a pure tone."""
    return sum(tone(k * hz, seconds, peak=3000) // k for k in range(1, 12)).astype(np.int16)


SOUND = np.concatenate(
    (
        silence(0.5),
        voice(0.4, 130),
        silence(1.9),
        tone(3500, 0.3),
        voice(0.3, 900),
        silence(0.15),
        voice(0.5, 160),
        silence(0.05),
    )
)


@pytest.mark.parametrize(
    "gate", [OFF, GateSettings(), GateSettings(hangover_ms=100, pre_roll_ms=300)], ids=str
)
@pytest.mark.parametrize(("hop_frames", "n_outputs"), [(2, 1), (4, 2), (3, 1)])
def test_the_sound_of_these_tests_is_full_of_events(gate, hop_frames, n_outputs):
    spotter = Spotter(Ears(hop_frames=hop_frames, n_outputs=n_outputs), gate=gate)
    keywords = {event.keyword for event in spotter.process(SOUND)}
    assert keywords == {"low", "high"}


@pytest.mark.parametrize("gate", [OFF, GateSettings(hangover_ms=100, pre_roll_ms=300)], ids=str)
@pytest.mark.parametrize(("hop_frames", "n_outputs"), [(2, 1), (4, 2), (3, 1)])
@given(cuts=st.lists(st.integers(0, 9000), max_size=14))
def test_events_do_not_depend_on_how_samples_are_cut(gate, hop_frames, n_outputs, cuts):
    spotter = Spotter(Ears(hop_frames=hop_frames, n_outputs=n_outputs), gate=gate)
    whole = spotter.process(SOUND) + spotter.flush()
    edges = np.minimum(np.cumsum([0, *cuts]), len(SOUND))
    pieces = [SOUND[a:b] for a, b in zip(edges, [*edges[1:], len(SOUND)], strict=True)]
    cut = [event for piece in pieces for event in spotter.process(piece)]
    assert cut + spotter.flush() == whole


@pytest.mark.parametrize("n_samples", [1, 160, 1280])
def test_events_do_not_depend_on_the_size_of_chunks(n_samples):
    sound = SOUND[: RATE_HZ if n_samples == 1 else len(SOUND)]
    spotter = Spotter(Ears())
    whole = spotter.process(sound)
    assert whole
    spotter.reset()
    chunks = range(0, len(sound), n_samples)
    events = [event for i in chunks for event in spotter.process(sound[i : i + n_samples])]
    assert events == whole


def test_without_a_gate_the_model_sees_every_frame():
    ears = Ears()
    Spotter(ears, gate=OFF).process(SOUND)
    frames = Features(FEATURES).process(SOUND)
    assert np.array_equal(ears.heard, frames[: len(frames) // 2 * 2])


def test_in_silence_the_model_does_not_run():
    ears = Ears()
    assert Spotter(ears).process(silence(5)) == []
    assert [call for call in ears.calls if call is not None] == []


@pytest.mark.usefixtures("loud_gate")
def test_a_closure_shorter_than_the_pre_roll_is_as_if_the_gate_had_not_closed():
    sound = np.concatenate((tone(300, 0.3), silence(0.3), tone(3000, 0.3), silence(0.25)))
    sound = np.concatenate((sound, tone(300, 0.3)))
    gated, ungated = Ears(), Ears()
    events = Spotter(gated, gate=GateSettings(pre_roll_ms=400)).process(sound)
    assert events == Spotter(ungated, gate=OFF).process(sound) != []
    assert np.array_equal(gated.heard, ungated.heard)
    assert gated.n_resets == ungated.n_resets


@pytest.mark.usefixtures("loud_gate")
def test_after_a_longer_closure_the_model_starts_anew_from_the_pre_roll():
    sound = np.concatenate((tone(300, 0.2), silence(2), tone(3000, 0.2)))
    ears = Ears()
    spotter = Spotter(ears, gate=GateSettings(pre_roll_ms=300))
    spotter.process(sound)
    frames = Features(FEATURES).process(sound)
    frames = frames[: len(frames) // 2 * 2]
    opening = 2.2 * RATE_HZ
    ends = np.arange(1, len(frames) // 2 + 1) * 320 + 240  # of each step of two frames
    first_open = int(np.argmax(ends // 320 * 320 > opening))
    assert np.array_equal(ears.heard, frames[2 * (first_open - 15) :])


@pytest.mark.usefixtures("loud_gate")
def test_without_pre_roll_the_model_starts_at_the_opening():
    ears = Ears()
    Spotter(ears, gate=GateSettings(pre_roll_ms=0)).process(np.r_[silence(1), tone(300, 0.2)])
    assert len(ears.heard) == len(Features(FEATURES).process(tone(300, 0.2))) // 2 * 2


@pytest.mark.usefixtures("loud_gate")
def test_detections_out_of_the_pre_roll_carry_their_own_time():
    """The gate opens late, 0.3 s after the sound that the script answers to."""
    sound = np.concatenate((silence(1), tone(300, 0.3, peak=400), tone(300, 0.5)))
    model = Script({5: 0.9, 6: 0.9, 7: 0.9}, smoothing_ms=20)
    (event,) = Spotter(model, gate=GateSettings(pre_roll_ms=300)).process(sound)
    assert 1.0 < event.end_s < 1.3


@pytest.mark.usefixtures("loud_gate")
def test_the_refractory_time_runs_on_behind_a_closed_gate():
    sound = np.concatenate((tone(300, 0.1), silence(0.6), tone(300, 0.5)))
    gate = GateSettings(pre_roll_ms=0)
    script = {0: 0.9, 10: 0.9}  # starts over at each opening, with the model
    ends = {
        refractory_ms: [
            event.end_s
            for event in Spotter(
                Script(script, smoothing_ms=0, refractory_ms=refractory_ms), gate=gate
            ).process(sound)
        ]
        for refractory_ms in (500, 800, 5000)
    }
    assert ends == {500: [0.035, 0.735], 800: [0.035, 0.935], 5000: [0.035]}


@pytest.mark.parametrize(("step", "end_s"), [(0, 0.035), (9, 0.215), (49, 1.015)])
def test_a_detection_ends_where_the_last_frame_of_its_step_does(step, end_s):
    """Step k of two frames ends 2 (k + 1) hops of 10 ms and 15 ms of window in."""
    spotter = Spotter(Script({step: 0.8}, smoothing_ms=0), gate=OFF)
    assert spotter.process(silence(1.1)) == [
        Detection(keyword="low", score=0.8, start_s=None, end_s=end_s, model="fake")
    ]


def test_each_output_of_a_step_has_its_own_time():
    model = Script({0: 0.9, 1: 0.0, 41: 0.9}, hop_frames=4, n_outputs=2, smoothing_ms=0)
    ends = [event.end_s for event in Spotter(model, gate=OFF).process(silence(1.1))]
    assert ends == [0.035, 0.855]


def test_the_models_delay_is_taken_off_the_time():
    model = Script({0: 0.9, 1: 0.0, 49: 0.9}, smoothing_ms=0, delay_ms=120)
    events = Spotter(model, gate=OFF).process(silence(1.1))
    assert [(event.start_s, event.end_s) for event in events] == [(None, 0.0), (None, 0.895)]


def test_a_start_is_the_onset_of_the_speech_that_the_word_ends():
    sound = np.r_[silence(1), voice(0.5, 130), silence(0.5)]
    model = Script({20: 0.9}, smoothing_ms=0)
    (event,) = Spotter(model, gate=GateSettings(pre_roll_ms=0)).process(sound)
    assert event.start_s == pytest.approx(1.0, abs=0.08)
    assert event.end_s == pytest.approx(1.4, abs=0.1)


def test_within_running_speech_and_without_a_gate_no_start_is_claimed():
    sound = np.r_[silence(1), voice(3, 130)]
    model = Script({130: 0.9}, smoothing_ms=0, word_ms=600)
    (event,) = Spotter(model, gate=GateSettings(pre_roll_ms=0)).process(sound)
    assert event.start_s is None
    (event,) = Spotter(Script({130: 0.9}, smoothing_ms=0), gate=False).process(sound)
    assert event.start_s is None


def test_a_detection_never_starts_before_the_one_before_it_ends():
    model = Script({5: 0.9, 6: 0.0, 25: 0.9}, smoothing_ms=0, word_ms=800, refractory_ms=0)
    spotter = Spotter(model, gate=GateSettings(pre_roll_ms=0))
    first, second = spotter.process(np.r_[silence(1), voice(1, 130)])
    assert first.start_s == pytest.approx(1.0, abs=0.08)
    assert second.start_s == first.end_s < second.end_s


def test_the_peak_of_a_detection_is_told_when_its_rise_is_over():
    script = {9: 0.6, 10: 0.8, 11: 0.95, 12: 0.7, 13: 0.2}
    spotter = Spotter(Script(script, smoothing_ms=0), gate=False)
    (detection,) = spotter.process(silence(0.27))  # up to output 11
    assert detection.score == 0.6
    assert spotter.take_peaks() == []
    assert spotter.process(silence(0.1)) == []
    assert spotter.take_peaks() == [Peak(**detection.fields(), peak=0.95)]
    assert spotter.take_peaks() == []


@pytest.mark.parametrize("gate", [OFF, GateSettings(hangover_ms=100, pre_roll_ms=300)], ids=str)
@given(cuts=st.lists(st.integers(0, 9000), max_size=14))
def test_peaks_do_not_depend_on_how_samples_are_cut(gate, cuts):
    spotter = Spotter(Ears(), gate=gate)
    n_detections = len(spotter.process(SOUND) + spotter.flush())
    whole = spotter.take_peaks()
    assert len(whole) == n_detections
    assert all(one.peak >= one.score for one in whole)
    edges = np.minimum(np.cumsum([0, *cuts]), len(SOUND))
    for a, b in zip(edges, [*edges[1:], len(SOUND)], strict=True):
        spotter.process(SOUND[a:b])
    spotter.flush()
    assert spotter.take_peaks() == whole


def test_settings_go_before_what_the_manifest_says():
    script = {9: 0.4, 10: 0.4, 11: 0.0, 20: 0.4, 21: 0.4}
    model = Script(script, smoothing_ms=200, refractory_ms=5000, threshold=0.9)
    wanted = DecisionSettings(threshold=0.3, smoothing_ms=40, refractory_ms=0)
    spotter = Spotter(model, gate=OFF, decision=wanted)
    assert [event.end_s for event in spotter.process(silence(1))] == [0.235, 0.455]


def test_a_smoothing_of_zero_in_the_settings_is_not_taken_for_none():
    model = Script({9: 0.9}, smoothing_ms=200)
    spotter = Spotter(model, gate=OFF, decision=DecisionSettings(smoothing_ms=0))
    assert len(spotter.process(silence(1))) == 1


def test_flush_returns_what_a_word_at_the_very_end_still_gives():
    model = Script({49 + 20: 0.9}, smoothing_ms=0)
    spotter = Spotter(model, gate=OFF)
    assert spotter.process(silence(1)) == []
    (event,) = spotter.flush()
    assert event.end_s == 1.0  # found in the silence after it, which is no part of the stream


def test_flush_ends_the_stream():
    spotter = Spotter(Ears())
    first = spotter.process(SOUND) + spotter.flush()
    assert first
    assert spotter.process(SOUND) + spotter.flush() == first


@pytest.mark.parametrize("gate", [OFF, GateSettings()], ids=str)
def test_reset_gives_the_same_events_again(gate):
    spotter = Spotter(Ears(), gate=gate)
    first = spotter.process(SOUND)
    spotter.process(SOUND[:7777])
    spotter.reset()
    assert spotter.process(SOUND) == first != []


def test_no_samples_are_no_events():
    assert Spotter(Ears()).process(np.empty(0, np.int16)) == []


@pytest.mark.slow
@pytest.mark.parametrize("gate", [OFF, GateSettings()], ids=str)
def test_five_minutes_in_one_piece_take_no_more_memory_than_seconds(gate):
    minutes = np.tile(np.r_[voice(0.5, 130), silence(1.5)], 150)
    spotter = Spotter(Script({}), gate=gate)
    spotter.process(minutes[: 10 * RATE_HZ])
    tracemalloc.start()
    spotter.process(minutes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000 < minutes.nbytes


@pytest.mark.parametrize(
    ("samples", "received"),
    [
        (np.zeros((3200, 2), np.int16), "2-dimensional int16. Mix down to mono first."),
        (np.zeros(3200, np.int32), "int32. Convert them, for example by numpy."),
        (np.full(3200, 900.0), "floats up to 900. Divide them by their full scale."),
        (np.full(3200, np.nan), "floats up to nan. Divide them by their full scale."),
        (b"odd", "3 bytes, which end within a sample. Convert them, for example by numpy."),
        ([0, 1, 2], "a list. Convert them, for example by numpy."),
        (None, "a NoneType. Convert them, for example by numpy."),
    ],
    ids=str,
)
def test_other_samples_are_refused_without_a_trace(samples, received):
    spotter = Spotter(Ears())
    whole = spotter.process(SOUND)
    spotter.reset()
    before = spotter.process(SOUND[:20_000])
    message = (
        f"Samples must be one-dimensional int16, floats in -1..1, or bytes of s16le. "
        f"Received: {received}"
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        spotter.process(samples)
    assert before + spotter.process(SOUND[20_000:]) == whole


def test_refused_samples_do_not_count_as_heard():
    spotter = Spotter(Script({49 + 20: 0.9}, smoothing_ms=0), gate=OFF)
    spotter.process(silence(1))
    with pytest.raises(FormatError):
        spotter.process(np.zeros((3200, 2), np.int16))
    (event,) = spotter.flush()
    assert event.end_s == 1.0


def test_floats_and_bytes_give_the_same_events_as_integers():
    whole = Spotter(Ears()).process(SOUND)
    assert whole
    assert Spotter(Ears()).process(SOUND.astype("<i2").tobytes()) == whole
    for dtype in (np.float32, np.float64):
        assert Spotter(Ears()).process(SOUND.astype(dtype) / 32_768) == whole


def test_listening_processes_and_flushes_any_kind_of_source(recording, model):
    whole = list(Spotter(model, gate=False).listen(recording))
    assert [one.keyword for one in whole] == ["stop", "stop"]
    samples, _ = soundfile.read(recording, dtype="int16")
    chunks = np.array_split(samples, 17)
    for source in (
        str(recording),
        SourceSettings(input=str(recording)),
        samples,
        samples.tobytes(),
        chunks,
        (chunk.tobytes() for chunk in chunks),
        (chunk / 32_768 for chunk in chunks),
    ):
        assert list(Spotter(str(model), gate=False).listen(source)) == whole


def test_what_was_read_before_a_source_failed_is_processed_first(model, recording):
    samples, _ = soundfile.read(recording, dtype="int16")

    def broken():
        yield samples[:16_000]
        raise AudioError("The disk is gone.")

    found = []
    with pytest.raises(AudioError, match=r"^The disk is gone\.$"):
        found.extend(Spotter(model, gate=False).listen(broken()))
    assert len(found) == 1


def test_several_models_share_one_stream_and_keep_their_own_thresholds():
    others = ("_silence_", "deep", "shrill")
    low = Script({20: 0.9}, smoothing_ms=0)
    one, two = Spotter(low, gate=False), Spotter(Ears(labels=others), gate=False)
    both = Spotter([Script({20: 0.9}, smoothing_ms=0), Ears(labels=others)], gate=False)
    apart = sorted(one.process(SOUND) + two.process(SOUND), key=lambda event: event.end_s)
    assert both.process(SOUND) == apart
    assert both.keywords == ("low", "high", "deep", "shrill")
    assert [manifest.name for manifest in both.manifests] == ["fake", "fake"]
    assert len(both._features) == 1, "equal features are computed once"


def test_models_that_share_a_keyword_give_one_detection_for_an_utterance():
    """Two people's models of one word ran the hooks twice."""
    models = [Script({20: 0.6}, smoothing_ms=0), Script({22: 0.9}, smoothing_ms=0)]
    spotter = Spotter(models, gate=False)
    found = spotter.process(SOUND) + spotter.flush()
    assert [(one.keyword, one.score) for one in found] == [("low", 0.9)]
    assert [one.score for one in spotter.take_peaks()] == [0.9]


@given(cuts=st.lists(st.integers(0, 9000), max_size=14))
def test_events_of_several_models_do_not_depend_on_how_samples_are_cut(cuts):
    gate = GateSettings(hangover_ms=100, pre_roll_ms=300)
    spotter = Spotter([Ears(hop_frames=3), Ears(hop_frames=4, n_outputs=2)], gate=gate)
    whole = spotter.process(SOUND) + spotter.flush()
    edges = np.minimum(np.cumsum([0, *cuts]), len(SOUND))
    pieces = [SOUND[a:b] for a, b in zip(edges, [*edges[1:], len(SOUND)], strict=True)]
    cut = [event for piece in pieces for event in spotter.process(piece)]
    assert cut + spotter.flush() == whole


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spotter(5), "A model must be a bundled name, a path, ModelSettings or what"),
        (lambda: Spotter([]), "A spotter needs a model. Received: none."),
        (lambda: Spotter("comptuer"), "A model must be a bundled model's name or a file."),
        (lambda: Spotter(Ears(), threshold=5), "`threshold` of DecisionSettings: expected"),
        (lambda: Spotter(Ears(), threshold="high"), "`threshold` of DecisionSettings: expected"),
        (lambda: Spotter(Ears(), near_miss_score=2), "`near_miss_score` must lie in 0..1."),
        (lambda: Spotter(Ears(), false_alarms_per_hour=-1), "`false_alarms_per_hour` of"),
        (lambda: Spotter(Ears(), gate="on"), "`gate` must be GateSettings, True or False."),
        (lambda: Spotter(Ears(), decision={}), "`decision` must be DecisionSettings."),
        (
            lambda: Spotter([Ears(), Ears()], decision=DecisionSettings(thresholds={"lo": 0.5})),
            "`thresholds` must name keywords of the models. Received: `lo`. Did you mean `low`?",
        ),
        (lambda: list(Spotter(Ears()).listen(7)), "A source must be `mic`, a file, a URL,"),
        (lambda: list(Spotter(Ears()).listen("none.wav")), "The input must be"),
    ],
)
def test_wrong_arguments_get_an_error_that_says_what_to_pass(make, message):
    with pytest.raises(KwsError, match=f"^{re.escape(message)}"):
        make()


@pytest.mark.parametrize("make", [Spotter, open_for_sources])
def test_an_untrusted_model_is_checked_before_it_is_opened(make, monkeypatch):
    """`open_model` alone would open it: its network only fails later."""
    path = Path(__file__).parents[1] / "data" / "hostile" / "hanglater.tflite"
    assert open_model(path).manifest.name == "evil"
    monkeypatch.setattr("kws.spotter.open_model", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(ModelError, match=r"a bounded cost: .*Received: the operator WHILE"):
        make(path)


def test_a_threshold_for_an_unknown_keyword_is_refused_at_once():
    with pytest.raises(ConfigError, match="Did you mean `low`"):
        Spotter(Ears(), decision=DecisionSettings(thresholds={"lo": 0.5}))


@pytest.mark.slow
def test_a_real_network_gives_the_same_events_however_samples_are_cut(tiny_file, voiced):
    """Untrained, it says little with much certainty; any threshold that it crosses will do."""
    sound = np.concatenate((voiced, silence(1), voiced[::2], silence(0.5)))
    wanted = DecisionSettings(threshold=0.27, refractory_ms=100, smoothing_ms=20)
    spotter = Spotter(open_model(tiny_file(), reference=True), gate=OFF, decision=wanted)
    whole = spotter.process(sound)
    spotter.reset()
    cut = [
        event for i in range(0, len(sound), 333) for event in spotter.process(sound[i : i + 333])
    ]
    assert cut == whole != []


def test_a_meter_can_see_gate_posteriors_and_thresholds(model, recording):
    with wave.open(str(recording)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    spotter = Spotter(open_model(model), gate=GateSettings(enabled=False))
    assert (spotter.gate_open, spotter.posteriors) == (False, {"stop": 0.0, "go": 0.0})
    spotter.process(samples[: int(0.7 * 16_000)])
    assert spotter.gate_open
    assert spotter.posteriors["stop"] > spotter.thresholds["stop"] > spotter.posteriors["go"]
    spotter.reset()
    assert (spotter.gate_open, spotter.posteriors) == (False, {"stop": 0.0, "go": 0.0})


NEAR = {"gate": OFF, "decision": DecisionSettings(threshold=0.99), "near_miss_score": 0.3}


def near_misses(pieces, **options):
    spotter = Spotter(Ears(), **options)
    found = []
    for piece in pieces:
        spotter.process(piece)
        found += spotter.take_near_misses()
    spotter.flush()
    return found + spotter.take_near_misses()


def test_what_almost_fired_is_a_near_miss_at_its_place():
    assert near_misses([SOUND], **(NEAR | {"near_miss_score": None})) == []
    script = Script({10: 0.45, 11: 0.48, 12: 0.4}, smoothing_ms=20)
    spotter = Spotter(script, gate=OFF, near_miss_score=0.3)
    assert spotter.process(silence(1.0)) == []
    (one,) = spotter.take_near_misses()
    assert (one.keyword, one.score, one.model) == ("low", 0.48, "fake")
    assert spotter.take_near_misses() == []
    script = Script({11: 0.6}, smoothing_ms=20)
    spotter = Spotter(script, gate=OFF, near_miss_score=0.3)
    (hit,) = spotter.process(silence(1.0))
    assert (hit.start_s, hit.end_s) == (one.start_s, one.end_s)
    assert spotter.take_near_misses() == []


class Speller(Script):
    """Says the rest of each output with the blank."""

    def step(self, frames):
        rows = super().step(frames)
        rows[:, 0] = 1 - rows[:, 1]
        return rows


def test_a_sequence_that_was_not_sure_enough_is_a_near_miss_at_its_place():
    def heard(score, least):
        model = Speller({10: score, 11: score}, kind="ctc", pause_ms=60)
        sure = DecisionSettings(threshold=0.9)
        spotter = Spotter(model, gate=OFF, decision=sure, near_miss_score=least)
        return spotter.process(silence(1.0)), spotter.take_near_misses()

    (hit,), missed = heard(0.9, 0.3)
    assert missed == []
    hits, (one,) = heard(0.6, 0.3)
    assert hits == []
    assert (one.keyword, one.score, one.model) == ("low", 0.84, "fake")
    assert (one.start_s, one.end_s) == (hit.start_s, hit.end_s)
    assert heard(0.6, None) == heard(0.6, 0.9) == ([], [])


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, 9_000), max_size=20))
def test_near_misses_do_not_depend_on_the_chunks(lengths):
    for gate in (OFF, GateSettings(hangover_ms=100, pre_roll_ms=300)):
        whole = near_misses([SOUND], **(NEAR | {"gate": gate}))
        cuts = np.minimum(np.cumsum(lengths), len(SOUND)) if lengths else [1]
        assert near_misses(np.split(SOUND, cuts), **(NEAR | {"gate": gate})) == whole
    assert whole
