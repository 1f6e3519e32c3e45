"""Proofs 1 and 2: the daemon on a virtual microphone that is played to, unplugged and broken."""

import time

import numpy as np
import pytest

from kws.demo import match

pytestmark = [pytest.mark.system, pytest.mark.slow]

RATE_HZ = 16_000
STEP_SAMPLES = 640  # of the bundled model: where in a step a word begins is chance
WORD_END_S, WORD_S = 1.2, 2.0
LATENCY_S, BACK_S = 0.25, 5.0

CONFIG = """
[decision]
threshold = 0.5

[[sources]]
name = "one"
input = "mic"
stall_s = 1.0
"""
# An ALSA string goes to arecord, though PyAudio is installed.
SECOND = """
[[sources]]
name = "two"
input = "mic"
device = "plug:kws"
stall_s = 1.0
"""


@pytest.fixture
def listening(daemon, sound_server, wait_for):
    """Start a daemon that hears the microphone."""

    def start(toml):
        heard = daemon(toml, environment=sound_server.environment)
        n_sources = toml.count("[[sources]]")
        wait_for(lambda: len(heard.of("listening")) == n_sources, limit_s=60, what="microphones")
        return heard

    return start


@pytest.fixture
def play_exactly(sound_server, reference, write_wav, tmp_path):
    """Play samples; return when they came out of the microphone, or skip if there were gaps."""

    def play(samples):
        recorder = reference()
        sound_server.play(write_wav(tmp_path / "played.wav", samples)).wait(150)
        time.sleep(1.5)
        start = located(recorder.close(), samples)
        if start is None:
            pytest.skip("the machine is too busy for a virtual microphone: there were gaps")
        return recorder.arrival_s(start), recorder

    return play


def test_the_daemon_hears_on_a_microphone_what_it_hears_in_the_file(
    listening, play_exactly, demo, heard_in
):
    labels, samples = demo
    keywords = {word.word for word in labels.words}
    phases = [
        match(labels.words, heard_in(delayed(samples, n), threshold=0.5), keywords=keywords)
        for n in range(0, STEP_SAMPLES, STEP_SAMPLES // 8)
    ]
    always = set.intersection(*({word.start_s for word, _ in one.hits} for one in phases))
    ever = set.union(*({word.start_s for word, _ in one.hits} for one in phases))

    heard = listening(CONFIG)
    zero_s, _ = play_exactly(samples)
    told = [(at - zero_s, event) for at, event in heard.of("detection")]
    assert all(event["source"] == "one" for _, event in told)
    # The stream began before the recording, by a time that one event gives and all must agree on.
    on_file = {word.start_s: one.end_s for word, one in phases[0].hits}
    hits, false = {}, 0
    for at_s, event in told:
        word = next((w for w in labels.words if w.start_s <= at_s <= w.end_s + 0.7), None)
        if word and word.word == event["keyword"]:
            hits[word.start_s] = event["end_s"]
        else:
            false += 1
    assert always <= set(hits) <= ever
    assert false <= max(len(one.false) for one in phases)
    offsets = [end_s - on_file[start_s] for start_s, end_s in hits.items() if start_s in on_file]
    assert np.ptp(offsets) <= 0.1
    assert len(hits) >= 6


def test_a_hook_starts_within_250_ms_of_the_words_end(listening, play_exactly, drill, hook, capsys):
    path, notes = hook
    listening(CONFIG + f'[[hooks]]\nkeyword = "*"\ncommand = ["{path}"]\n')
    words = [drill[i % len(drill)] for i in range(30)]
    stream = np.concatenate([piece for _, piece in words])
    for _ in range(3):  # other work on the machine can only make it slower
        n_before = len(notes())
        zero_s, _ = play_exactly(stream)
        latencies_s = []
        for i, (word, _) in enumerate(words):
            end_s = zero_s + i * WORD_S + WORD_END_S
            near = [at for at, it in notes() if it == word and abs(at - end_s) < 0.75]
            assert len(near) == 1, f"word {i}, {word}: {len(near)} hooks"
            latencies_s.append(near[0] - end_s)
        assert len(notes()) == n_before + len(words)
        p50, p95 = np.percentile(latencies_s, [50, 95])
        with capsys.disabled():
            print(f"\nfrom a word's end to its hook: p50 {p50:.3f} s, p95 {p95:.3f} s")
        if p95 <= LATENCY_S:
            return
    pytest.fail(f"p95 {p95:.3f} s in three attempts")


@pytest.mark.timeout(900)
def test_a_microphone_that_was_unplugged_20_times_is_heard_again_and_leaves_nothing_behind(
    listening, sound_server, reference, drill, write_wav, tmp_path, wait_for
):
    recorder = reference("speaker.monitor")
    heard = listening(CONFIG + SECOND)
    before = heard.n_open()
    lesson = Lesson(sound_server, drill, write_wav, tmp_path, heard, n_words=300)
    windows = []
    for _ in range(20):
        sound_server.unplug()
        time.sleep(0.7)
        back_s = lesson.check(sound_server.plug, wait_for)
        time.sleep(2 * WORD_S)
        windows.append((back_s, time.time()))
    wait_for(lambda: heard.n_open() == before, what=f"as much open as before, {before}")
    assert not [line for line in heard.log if "Traceback" in line]
    n_words, missed = lesson.missed(recorder, windows)
    assert n_words >= 20
    assert not missed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trouble", ["suspended", "killed"])
def test_a_sound_server_that_fell_silent_is_heard_again_and_leaves_nothing_behind(
    listening, sound_server, drill, write_wav, tmp_path, wait_for, trouble
):
    heard = listening(CONFIG + SECOND)
    before = heard.n_open()
    lesson = Lesson(sound_server, drill, write_wav, tmp_path, heard, n_words=60)
    for _ in range(3):
        if trouble == "suspended":
            sound_server.suspend(on=True)
            wait_for(lambda: is_stalled(heard), what="a stall")
            lesson.check(lambda: sound_server.suspend(on=False), wait_for)
        else:
            sound_server.kill()
            wait_for(lambda: is_stalled(heard), what="a stall")
            lesson.check(sound_server.start, wait_for, plays_again=True)
    wait_for(lambda: heard.n_open() == before, what=f"as much open as before, {before}")


class Lesson:
    """Words that are played on and on, and which of them a daemon must have heard."""

    def __init__(self, server, drill, write_wav, folder, heard, *, n_words):
        self._server, self._heard = server, heard
        self._words = [drill[i % len(drill)][0] for i in range(n_words)]
        self._pieces = [drill[i % len(drill)][1] for i in range(n_words)]
        self._path = write_wav(folder / "lesson.wav", np.concatenate(self._pieces))
        server.play(self._path)

    def check(self, mend, wait_for, *, plays_again=False):
        """Mend the microphone; check that all is heard again soon; return since when."""
        n_before = len(self._heard.of("recovered"))
        mend()
        mended_s = time.time()
        if plays_again:
            self._server.play(self._path)

        def is_back():
            back = [event["source"] for _, event in self._heard.of("recovered")[n_before:]]
            return set(back) == {"one", "two"}

        wait_for(is_back, limit_s=BACK_S, what="both sources back")
        back_s = self._heard.of("recovered")[-1][0]
        assert back_s - mended_s <= BACK_S
        # After two words' time a whole one was said, whenever the audio came back.
        wait_for(
            lambda: (
                {event["source"] for at, event in self._heard.of("detection") if at > back_s + 0.2}
                == {"one", "two"}
            ),
            limit_s=2 * WORD_S + 1.0,
            what="a word heard by both sources",
        )
        return back_s

    def missed(self, recorder, windows):
        """Return how many words were said in the windows, and which of them who missed."""
        n_words, missed, at = 0, [], 0
        said = recorder.close()
        for i, word in enumerate(self._words):
            sought = self._pieces[i].astype("<i2").tobytes()
            if (found := said.find(sought, at)) < 0:
                continue  # a gap in what was played
            at = found + len(sought)
            start_s = recorder.arrival_s(found // 2)
            end_s = start_s + WORD_END_S
            if any(back_s + 0.2 < start_s and end_s + 0.8 < gone_s for back_s, gone_s in windows):
                n_words += 1
                by = {
                    event["source"]
                    for at_s, event in self._heard.of("detection")
                    if event["keyword"] == word and abs(at_s - end_s) < 0.8
                }
                missed += [(i, word, name) for name in sorted({"one", "two"} - by)]
        return n_words, missed


def is_stalled(heard):
    """Whether both sources have stalled since they were last heard."""
    states = {}
    for _, event in heard.of("listening", "stalled", "recovered"):
        states[event["source"]] = event["event"]
    return set(states.values()) == {"stalled"}


def located(recording, samples):
    """Return at which sample of a recording all samples follow bit for bit, or None."""
    first = int(np.flatnonzero(samples)[0])
    sought = samples[first:].astype("<i2").tobytes()
    at = recording.find(sought)
    return None if at < 0 else at // 2 - first


def delayed(samples, n):
    return np.concatenate([np.zeros(n, np.int16), samples])
