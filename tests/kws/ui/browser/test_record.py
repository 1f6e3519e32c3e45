"""Takes, enrolment and trial in Chromium, with a file in place of both microphones."""

import re
import wave

import numpy as np
import pytest
import soundfile
from playwright.sync_api import expect

from kws.commands.demo import load_demo
from kws.manifest import read_manifest

from .conftest import until

pytestmark = pytest.mark.slow

RATE = 16_000
PAUSE_S = 0.8
NO_MICROPHONE = """() => {
  navigator.mediaDevices.getUserMedia = () => Promise.reject(Error("not now"));
}"""


@pytest.fixture(scope="module")
def microphone_wav(tmp_path_factory):
    """Somebody says a word again and again, at four speeds; the browser plays it in a loop."""
    labels, path = load_demo()
    samples, _ = soundfile.read(path, dtype="int16")
    word = max(labels.words, key=lambda one: one.end_s - one.start_s)
    cut = samples[round((word.start_s - 0.1) * RATE) : round((word.end_s + 0.1) * RATE)]
    room = np.random.default_rng(1).normal(0, 3, round(PAUSE_S * RATE)).astype(np.int16)
    said = [room]
    for speed in 60 * (0.94, 0.98, 1.0, 1.04):
        at = np.arange(0, len(cut) - 1, speed)
        said += [np.interp(at, np.arange(len(cut)), cut).astype(np.int16), room]
    path = tmp_path_factory.mktemp("said") / "said.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.concatenate(said).tobytes())
    return path


@pytest.fixture(scope="module")
def running(run_ui, microphone_wav):
    source = f'[source]\nname = "kitchen"\ninput = "{microphone_wav}"\n'
    with run_ui(source + "[ui]\nfolder = 'own'\n") as one:
        yield one


def test_a_word_is_recorded_enrolled_and_tried_live(running, open_page):
    page = open_page(running.link)
    page.get_by_role("link", name="Record").click()
    expect(page.get_by_text("Your own word, by your own voice")).to_be_visible()
    page.get_by_label("Word", exact=True).fill("my word")
    page.get_by_label("Number of takes").fill("3")
    page.get_by_label("Number of takes").press("Enter")  # the microphone of the browser
    recording = page.get_by_role("region", name="Recording")
    expect(recording.get_by_role("status")).to_contain_text("Say “my word”, then wait. Take 1 of 3")
    expect(recording.get_by_text("speech")).to_be_visible()
    expect(recording.get_by_role("meter")).to_have_attribute("aria-valuenow", re.compile("-[1-3]"))
    takes = page.get_by_role("region", name="Takes").locator("li")
    expect(recording.get_by_role("status")).to_contain_text("3 takes. Now enrol", timeout=20_000)
    expect(takes).to_have_count(3)
    files = sorted((running.folder / "own/takes/my word").iterdir())
    assert [one.name for one in files] == [f"me_nohash_{n}.wav" for n in range(3)]
    with wave.open(str(files[0])) as file:
        assert file.getframerate() == RATE
        assert 0.5 < file.getnframes() / RATE < 2.5

    page.get_by_role("button", name="Delete me_nohash_0").click()
    expect(takes).to_have_count(2)
    expect(page.get_by_role("button", name="Enrol")).to_be_disabled()
    expect(page.get_by_text("1 more to enrol")).to_be_visible()
    page.get_by_label("Microphone").select_option("kitchen")  # that of the machine
    page.get_by_role("button", name="Record", exact=True).click()
    expect(takes).to_have_count(3, timeout=20_000)
    page.get_by_role("button", name="Play me_nohash_1").click()
    until(page, "() => document.querySelector('audio').currentTime > 0.1")

    page.get_by_role("checkbox", name="Only my voice").check()
    page.get_by_role("button", name="Enrol").click()
    expect(page.get_by_text("“my word” is enrolled")).to_be_visible(timeout=240_000)
    model = running.folder / "own/models/my word.tflite"
    expect(page.get_by_role("region", name="Enrolment")).to_contain_text(f'name = "{model}"')
    expect(takes.first.locator(".chip")).to_have_text(re.compile(r"0\.\d\d|1\.00"))
    manifest, _ = read_manifest(model)
    assert manifest.keywords == ("my word",)
    assert manifest.speaker is not None

    page.get_by_role("button", name="Try it live").click()
    trial = page.get_by_role("region", name="Trial")
    expect(trial.get_by_role("img", name="Posterior of my word")).to_be_visible()
    expect(trial.locator("li.detection").first).to_contain_text("my word", timeout=20_000)
    trial.get_by_role("button", name="Stop").click()
    expect(trial).to_be_hidden()


def test_what_cannot_be_recorded_is_said(running, open_page):
    page = open_page(running.link, width=360, height=740)
    page.get_by_role("link", name="Record").click()
    page.get_by_label("Word", exact=True).fill("../escape")
    page.get_by_role("button", name="Record", exact=True).click()
    alert = page.get_by_role("alert").filter(has_text="A word and a speaker must be names")
    expect(alert).to_be_visible()
    assert not (running.folder / "own" / "escape").exists()
    assert not (running.folder / "escape").exists()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.evaluate(NO_MICROPHONE)
    page.get_by_label("Word", exact=True).fill("word")
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.get_by_text("The browser gives no microphone (not now).")).to_be_visible()
    expect(page.get_by_role("button", name="Record", exact=True)).to_be_visible()
