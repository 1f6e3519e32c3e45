"""Proofs 1 and 2: the daemon on a virtual microphone that is played to, unplugged and broken.

Of the two sources that go through the troubles, PyAudio records one where it is installed, and
arecord the other or both.
"""

import time

import numpy as np
import pytest

from kws.matching import match
from kws.sources.pyaudio_ import is_installed

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
silent_s = 0  # between the words a virtual microphone gives zeros
"""
# Without a device PyAudio is used where it is installed; an ALSA string goes to arecord even there.
SECOND = """
[[sources]]
name = "two"
input = "mic"
device = "plug:kws"
stall_s = 1.0
silent_s = 0  # between the words a virtual microphone gives zeros
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


@pytest.mark.parametrize("library", ["PyAudio", "arecord"])
def test_the_daemon_hears_on_a_microphone_what_it_hears_in_the_file(
    listening, play_exactly, demo, heard_in, library
):
    if library == "PyAudio" and not is_installed():
        pytest.skip("needs PyAudio: apt install portaudio19-dev, pip install '.[mic]'")
    labels, samples = demo
    keywords = {word.word for word in labels.words}
    phases = [
        match(labels.words, heard_in(delayed(samples, n), threshold=0.5), keywords=keywords)
        for n in range(0, STEP_SAMPLES, STEP_SAMPLES // 8)
    ]
    always = set.intersection(*({word.start_s for word, _ in one.hits} for one in phases))
    ever = set.union(*({word.start_s for word, _ in one.hits} for one in phases))

    heard = listening(CONFIG + 'device = "plug:kws"\n' * (library == "arecord"))
    ((_, opened),) = heard.of("listening")
    assert opened["detail"].startswith("arecord (") is (library == "arecord")
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


@pytest.fixture
def lesson(listening, sound_server, reference, drill, write_wav, tmp_path, wait_for):
    """Two sources that listen while words are played."""
    return Lesson(
        listening(CONFIG + SECOND), sound_server, reference, drill, write_wav, tmp_path, wait_for
    )


@pytest.mark.timeout(900)
def test_a_microphone_that_was_unplugged_20_times_is_heard_again_and_leaves_nothing_behind(
    lesson, sound_server
):
    for _ in range(20):
        sound_server.unplug()
        time.sleep(0.7)
        lesson.check(sound_server.plug)
    lesson.check_the_whole(n_words=20)


@pytest.mark.timeout(300)
def test_a_suspended_source_is_heard_again_and_leaves_nothing_behind(lesson, sound_server):
    for _ in range(3):
        sound_server.suspend(on=True)
        lesson.wait_for_stalls()
        lesson.check(lambda: sound_server.suspend(on=False))
    lesson.check_the_whole(n_words=3)


@pytest.mark.timeout(300)
def test_a_sound_server_that_was_killed_is_heard_again_and_leaves_nothing_behind(
    lesson, sound_server
):
    for _ in range(3):
        sound_server.kill()
        lesson.wait_for_stalls()
        lesson.check(sound_server.start)
    lesson.check_the_whole(n_words=3)


class Lesson:
    """Words that are played after each trouble, and which of them the daemon has heard."""

    def __init__(self, heard, server, reference, drill, write_wav, folder, wait_for):
        self._heard, self._server = heard, server
        self._reference, self._wait_for = reference, wait_for
        self._words = [drill[i % len(drill)] for i in range(20)]
        pieces = [piece for _, piece in self._words]
        self._path = write_wav(folder / "lesson.wav", np.concatenate(pieces))
        self._before = self._settled()
        self._n_words, self._missed, self._back_s = 0, [], []
        server.play(self._path)

    def check(self, mend):
        """Mend the microphone, play; note how soon both hear again, and what they miss then."""
        n_before = len(self._heard.of("recovered"))
        mend()
        mended_s = time.time()
        self._server.stop_playing()
        recorder = self._reference()
        self._server.play(self._path)

        def is_back():
            back = [event["source"] for _, event in self._heard.of("recovered")[n_before:]]
            return set(back) == {"one", "two"}

        self._wait_for(is_back, limit_s=30, what="both sources back")
        back_s = self._heard.of("recovered")[-1][0]
        self._back_s.append(back_s - mended_s)
        time.sleep(2.5 * WORD_S)
        gone_s = time.time()
        self._judge(recorder, back_s, gone_s)

    def check_the_whole(self, *, n_words):
        """Check that it was soon every time, all was heard, and nothing is left behind."""
        print("back after", *(f"{it:.2f}" for it in self._back_s), "s;", self._n_words, "words")
        assert max(self._back_s) <= BACK_S
        assert self._n_words >= n_words
        assert not self._missed
        assert self._settled() == self._before  # descriptors, threads, children
        assert not [line for line in self._heard.log if "Traceback" in line]

    def _settled(self):
        """Return how much is open, once that has been the same for two seconds."""
        last, since_s = None, time.monotonic()

        def is_settled():
            nonlocal last, since_s
            time.sleep(0.1)  # a hook or a client of a moment
            if (now := self._heard.n_open()) != last:
                last, since_s = now, time.monotonic()
            return time.monotonic() - since_s >= 2

        self._wait_for(is_settled, what="as much open for two seconds")
        return last

    def wait_for_stalls(self):
        """Wait until both sources have noticed the trouble."""
        self._wait_for(lambda: is_stalled(self._heard), what="stalls of both sources")

    def _judge(self, recorder, back_s, gone_s):
        """Count the words that came whole out of the microphone between, and who missed which."""
        said, at = recorder.close(), 0
        for i, (word, piece) in enumerate(self._words):
            sought = piece.astype("<i2").tobytes()
            if (found := said.find(sought[: 3 * len(sought) // 4], at)) < 0:
                continue  # not played any more, or a gap in it
            at = found + len(sought) // 2
            start_s = recorder.arrival_s(found // 2)
            end_s = start_s + WORD_END_S
            if back_s + 0.2 < start_s and end_s + 0.8 < gone_s:
                self._n_words += 1
                by = {
                    event["source"]
                    for at_s, event in self._heard.of("detection")
                    if event["keyword"] == word and abs(at_s - end_s) < 0.8
                }
                self._missed += [(i, word, name) for name in sorted({"one", "two"} - by)]


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
