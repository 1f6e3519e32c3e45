"""Whatever a user feeds to `kws listen`: one line that says what is wrong, and nothing lost."""

import io
import json
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
import soundfile

from kws.config import Config, HookSettings
from kws.manifest import FeatureSettings, StateTensor

CONFIG, AUDIO, MODEL, HOOK = 2, 3, 4, 5
HEADER_BYTES = 44
CONVERT = "`ffmpeg -i INPUT -ar 16000 -ac 1 out.wav`"
RECORD = "`arecord -q -t raw -f S16_LE -r 16000 -c 1 | kws listen --input -`"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def wav(recording):
    return recording.read_bytes()


@pytest.fixture
def listen(kws, model):
    """Listen with the loud model and without the gate, to JSON lines."""

    def run(*options):
        return kws("listen", "--model", model, "--no-vad", "--json", *options)

    return run


@pytest.fixture
def detections(listen, recording):
    """The lines that the whole recording gives, without the end: two detections."""
    _, out, _ = listen("--input", recording)
    *lines, _ = without_peaks(out)
    assert len(lines) == 2
    return lines


def without_peaks(out):
    return [line for line in out.splitlines() if not line.startswith('{"event":"peak"')]


def complains(ended, code, message):
    """Check everything but standard output, and return that."""
    got, out, err = ended
    assert "Traceback" not in out + err
    assert err == f"Error: {message}\n"
    assert got == code
    return out


def heard_before(out, detections, *, audio_s):
    """Check that `detections`, all of them and as ever, came before the end of a source."""
    *lines, end = without_peaks(out)
    assert lines == detections
    assert json.loads(end) | {"cpu_s": 0} == {
        "event": "end",
        "audio_s": audio_s,
        "detections": len(detections),
        "cpu_s": 0,
    }


def write_again(wav, *, container="WAV", subtype="PCM_16", spoil=None):
    """Write the recording in another encoding; `spoil` maps samples to what replaces them."""
    samples = np.frombuffer(wav[HEADER_BYTES:], "<i2") / 32_768
    for index, value in (spoil or {}).items():
        samples[index] = value
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=container, subtype=subtype)
    return file.getvalue()


def promising(wav, n_samples):
    """Let the header claim another length."""
    return wav[:40] + struct.pack("<I", 2 * n_samples) + wav[HEADER_BYTES:]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_samples_of_any_width_are_heard_like_those_of_16_bits(
    listen, wav, detections, tmp_path, subtype
):
    (tmp_path / "a.wav").write_bytes(write_again(wav, subtype=subtype))
    code, out, err = listen("--input", "a.wav")
    assert (code, err) == (0, "")
    *found, end = map(json.loads, without_peaks(out))
    for one, expected in zip(found, map(json.loads, detections), strict=True):
        assert one == expected | {"score": pytest.approx(expected["score"], abs=0.005)}
    assert (end["audio_s"], end["detections"]) == (3.0, 2)


# How a file is made, how much of it is heard (detections, seconds), and what is said of it.
BROKEN_FILES = {
    "a WAV cut short": (
        lambda wav: wav[:40_044],
        (1, 1.25),
        "A WAV must hold all the samples its header promises. Received: 20000 of 48000 samples "
        "(1.250 of 3.000 s) in a.file. All of them were used; the file is cut short or its header "
        "is wrong: copy or record it again.",
    ),
    "a WAV cut within a sample": (
        lambda wav: wav[:70_043],
        (2, 2.187),
        "A WAV must hold all the samples its header promises. Received: 34999 of 48000 samples "
        "(2.187 of 3.000 s) in a.file. All of them were used; the file is cut short or its header "
        "is wrong: copy or record it again.",
    ),
    "a header that promises too much": (
        lambda wav: promising(wav, 96_000),
        (2, 3.0),
        "A WAV must hold all the samples its header promises. Received: 48000 of 96000 samples "
        "(3.000 of 6.000 s) in a.file. All of them were used; the file is cut short or its header "
        "is wrong: copy or record it again.",
    ),
    "a header that promises too little": (
        lambda wav: promising(wav, 12_000),
        (2, 3.0),
        "A WAV must hold only the samples its header promises. Received: 48000 instead of 12000 "
        "samples (3.000 instead of 0.750 s) in a.file. All of them were used; fix its header: "
        "`ffmpeg -ignore_length 1 -i in.wav out.wav`.",
    ),
    "NaN": (
        lambda wav: write_again(wav, subtype="FLOAT", spoil={20_000: np.nan}),
        (1, 1.25),
        "Every sample must be a finite number. Received: nan in a.file at sample 20000 (1.250 s). "
        "Mend or export the recording again.",
    ),
    "infinity": (
        lambda wav: write_again(wav, subtype="DOUBLE", spoil={40_000: -np.inf}),
        (2, 2.5),
        "Every sample must be a finite number. Received: -inf in a.file at sample 40000 (2.500 s). "
        "Mend or export the recording again.",
    ),
    "a FLAC cut short": (
        lambda wav: (flac := write_again(wav, container="FLAC"))[: len(flac) * 3 // 4],
        (1, 1.792),
        "An audio file must hold all the samples it promises. Received: 28672 of 48000 samples "
        "(1.792 s) in a.file (flac decoder lost sync). All of them were used; copy or record it "
        "again.",
    ),
}


@pytest.mark.parametrize(("make", "until", "message"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_file_that_breaks_off_is_heard_up_to_there(
    listen, wav, detections, tmp_path, make, until, message
):
    (tmp_path / "a.file").write_bytes(make(wav))
    n_detections, audio_s = until
    out = complains(listen("--input", "a.file"), AUDIO, message)
    heard_before(out, detections[:n_detections], audio_s=audio_s)


CUT_HEADER = (
    "A WAV must have a whole `fmt ` chunk and then a `data` chunk. Received: {name}, whose header "
    "lacks them or is cut short. Copy or record it again."
)
NO_AUDIO = (
    "The input must be a whole audio file (WAV, FLAC, Ogg, MP3, AIFF). Received: {name} ({reason})."
    f" Copy it again, or if it is audio of another kind convert it: {CONVERT}."
)
NOT_RECOGNISED = NO_AUDIO.replace("{reason}", "Format not recognised")

NO_SOUND_FILES = {
    "text named .wav": ("diary.wav", lambda _: b"Dear diary,\n", NOT_RECOGNISED),
    "text named .flac": ("diary.flac", lambda _: b"Dear diary,\n", NOT_RECOGNISED),
    "an empty file": (
        "empty.wav",
        lambda _: b"",
        "An audio file must hold audio. Received: {name}, an empty file. Record it again.",
    ),
    "a WAV of 5 bytes": ("a.wav", lambda wav: wav[:5], CUT_HEADER),
    "a WAV of 30 bytes": ("a.wav", lambda wav: wav[:30], CUT_HEADER),
    "a WAV without channels": (
        "a.wav",
        lambda wav: wav[:22] + bytes(2) + wav[24:],
        "A WAV must have at least one channel. Received: 0 in {name}. Record it again.",
    ),
    "a FLAC of 50 bytes": (
        "a.flac",
        lambda wav: write_again(wav, container="FLAC")[:50],
        NO_AUDIO.replace("{reason}", "unknown error in flac decoder"),
    ),
}


@pytest.mark.parametrize(("name", "make", "message"), NO_SOUND_FILES.values(), ids=NO_SOUND_FILES)
def test_a_file_that_is_no_audio_is_refused(listen, wav, tmp_path, name, make, message):
    (tmp_path / name).write_bytes(make(wav))
    assert complains(listen("--input", name), AUDIO, message.replace("{name}", name)) == ""


def test_text_named_wav_is_not_taken_for_one_where_soundfile_is_missing(
    listen, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "diary.wav").write_bytes(b"Dear diary,\n")
    message = (
        "The input must be WAV unless soundfile is there to read other files. Received: diary.wav, "
        "which does not begin as a WAV. Run `pip install 'kws[files]'`."
    )
    assert complains(listen("--input", "diary.wav"), AUDIO, message) == ""


BAD_STREAMS = {
    "raw audio that ends within a sample": (
        lambda wav: wav[HEADER_BYTES:40_045],
        (1, 1.25),
        "Standard input must end on a whole 16-bit sample. Received: 1 byte after 20000 samples "
        f"(1.250 s). All whole ones were used; check that it is s16le: {RECORD}.",
    ),
    "nothing": (
        lambda _: b"",
        (0, 0.0),
        "Standard input must carry audio. Received: nothing before its end. Check the program that "
        f"feeds it: {RECORD}.",
    ),
    "a WAV cut short": (
        lambda wav: wav[:70_043],
        (2, 2.187),
        "A WAV must hold all the samples its header promises. Received: 34999 of 48000 samples "
        "(2.187 of 3.000 s) in standard input. All of them were used; the file is cut short or its "
        "header is wrong: copy or record it again.",
    ),
    "a header alone, cut": (
        lambda wav: wav[:30],
        (0, 0.0),
        CUT_HEADER.replace("{name}", "standard input"),
    ),
    "a FLAC": (
        lambda wav: write_again(wav, container="FLAC"),
        (0, 0.0),
        "Standard input must be raw 16000 Hz mono s16le, or WAV. Received: FLAC. Decode it: "
        "`ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | kws listen -`. FLAC, Ogg and MP3 can be "
        "given as FILE in place of -.",
    ),
}


@pytest.mark.parametrize(("make", "until", "message"), BAD_STREAMS.values(), ids=BAD_STREAMS)
def test_standard_input_that_breaks_off_is_heard_up_to_there(
    listen, wav, detections, monkeypatch, make, until, message
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(make(wav))))
    n_detections, audio_s = until
    out = complains(listen("--input", "-"), AUDIO, message)
    heard_before(out, detections[:n_detections], audio_s=audio_s)


def flatbuffer_bytes(content):
    """Return where the archive with the manifest begins."""
    return content.index(b"PK\3\4")


@pytest.mark.parametrize("n_bytes", [0, 7])
def test_a_model_cut_before_its_mark_is_refused(kws, model, recording, tmp_path, n_bytes):
    (tmp_path / "cut.tflite").write_bytes(model.read_bytes()[:n_bytes])
    ended = kws("listen", "--json", "--model", "cut.tflite", "--input", recording)
    message = (
        f"The model must be a whole .tflite file. Received: cut.tflite, {n_bytes} bytes without "
        f"its mark TFL3. Copy it again, or make one with `kws export`."
    )
    assert complains(ended, MODEL, message) == ""


CUTS = {
    "to its mark": lambda _: 8,
    "within the network": lambda content: flatbuffer_bytes(content) // 2,
    "before the manifest": flatbuffer_bytes,
    "within the manifest": lambda content: flatbuffer_bytes(content) + 20,
    "by one byte": lambda content: len(content) - 1,
}


@pytest.mark.parametrize("length", CUTS.values(), ids=CUTS)
def test_a_model_cut_short_is_refused(kws, model, recording, tmp_path, length):
    content = model.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: length(content)])
    ended = kws("listen", "--json", "--model", "cut.tflite", "--input", recording)
    message = (
        "A model must carry its manifest kws.json inside the file, or beside it as cut.kws.json. "
        "Received: cut.tflite with none that can be read: the file is cut short or not from kws. "
        "Copy it again, export it with `kws export`, or write cut.kws.json."
    )
    assert complains(ended, MODEL, message) == ""


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_model_cut_short_beside_its_manifest_is_refused(kws, model, recording, tmp_path, share):
    content = model.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extract("kws.json", tmp_path)
    n_bytes = int(share * flatbuffer_bytes(content))
    (tmp_path / "cut.tflite").write_bytes(content[:n_bytes])
    ended = kws("listen", "--json", "--model", "cut.tflite", "--input", recording)
    message = (
        "The model must be a whole flatbuffer. Received: cut.tflite, in which an offset leads "
        "outside the file. Copy or export it again."
    )
    assert complains(ended, MODEL, message) == ""


# What the manifest says, in its own terms and in the message's, and what the network has.
DISAGREEING = {
    "labels": ({"labels": ("_silence_", "stop", "go", "yes")}, "4 labels", "3 outputs"),
    "features": (
        {"features": FeatureSettings(n_mfcc=12)},
        "an input of 1 frames of 12",
        "13 values",
    ),
    "frames": ({"n_frames": 2, "hop_frames": 2}, "an input of 2 frames of 13", "13 values"),
    "input": ({"input": "pixels"}, "an input tensor `pixels`", "frames"),
    "output": ({"output": "classes"}, "an output tensor `classes`", "posteriors"),
    "states": (
        {"states": (StateTensor(input="h", output="h", shape=(1, 2)),)},
        "a tensor `h`",
        "none",
    ),
    "shapes": (
        {"states": (StateTensor(input="frames", output="posteriors", shape=(1, 2)),)},
        "a state of shape (1, 2)",
        "(1, 13)",
    ),
}


@pytest.mark.parametrize(("changes", "says", "received"), DISAGREEING.values(), ids=DISAGREEING)
def test_a_model_whose_manifest_disagrees_with_its_tensors_is_refused(
    kws, make_model, recording, tmp_path, changes, says, received
):
    (tmp_path / "odd.tflite").write_bytes(make_model(**changes))
    ended = kws("listen", "--json", "--model", "odd.tflite", "--input", recording)
    message = (
        f"The manifest of `loud` must agree with its tensors: it says {says}. "
        f"Received: {received}. Export the model again."
    )
    assert complains(ended, MODEL, message) == ""


NO_PROGRAM = "A hook's program must exist and be executable. Received: "
BAD_HOOKS = {
    "an unknown keyword": (
        "keyword = 'stopp'\ncommand = ['true']",
        "A hook's `keyword` must be `*` or one of the model's. Received: `stopp` in entry 1 of "
        "[[hooks]]. Did you mean `stop`? The keywords are: stop, go.",
    ),
    "a program not on PATH": (
        "keyword = 'stop'\ncommand = ['no-such-program', 'now']",
        f"{NO_PROGRAM}`no-such-program` in entry 1 of [[hooks]] (not on PATH). Install it, or "
        f"write its whole path.",
    ),
    "a script that is not there": (
        "keyword = 'stop'\ncommand = '/no/such/script'",
        f"{NO_PROGRAM}`/no/such/script` in entry 1 of [[hooks]] (No such file or directory). "
        f"Correct the path.",
    ),
    "a script that is not here": (
        "keyword = 'stop'\ncommand = './script'",
        f"{NO_PROGRAM}`./script` in entry 1 of [[hooks]] (No such file or directory). Write its "
        f"whole path: this one starts at HERE.",
    ),
    "a script that may not run": (
        "keyword = '*'\ncommand = './plain.sh'",
        f"{NO_PROGRAM}`./plain.sh` in entry 1 of [[hooks]] (not executable). "
        f"Run `chmod +x ./plain.sh`.",
    ),
    "a key misspelt": (
        "keyword = '*'\ncomand = ['true']",
        "Every key in kws.toml must be one that kws knows. Received: `comand` in "
        "`hooks[0]`. Did you mean `command`? Known there: "
        f"{', '.join(HookSettings.__struct_fields__)}.",
    ),
    "no command": (
        "keyword = '*'",
        "`hooks[0].command` must be set in kws.toml. Received: none. Add it.",
    ),
}


@pytest.mark.parametrize(("hook", "message"), BAD_HOOKS.values(), ids=BAD_HOOKS)
def test_a_hook_that_cannot_run_is_refused_before_anything_is_heard(
    listen, recording, tmp_path, hook, message
):
    (tmp_path / "plain.sh").write_text("#!/bin/sh\n")
    (tmp_path / "kws.toml").write_text(f"[[hooks]]\n{hook}\n")
    ended = listen("--input", recording, "--config", "kws.toml")
    assert complains(ended, HOOK, message.replace("HERE", str(tmp_path))) == ""


BAD_SETTINGS = {
    "text for a number": (
        "[decision]\nthreshold = 'high'",
        "`decision.threshold` in kws.toml: expected `float | null`, got `str`. "
        'Received: "high". Change it.',
    ),
    "a quoted number": (
        "[source]\nchunk_ms = '80'",
        '`source.chunk_ms` in kws.toml: expected `int`, got `str`. Received: "80". Change it.',
    ),
    "a number for a switch": (
        "[gate]\nenabled = 1",
        "`gate.enabled` in kws.toml: expected `bool`, got `int`. Received: 1. Change it.",
    ),
    "a value for a table": (
        "gate = false",
        "`gate` in kws.toml: expected `table`, got `bool`. Received: false. Change it.",
    ),
    "a key misspelt": (
        "[decision]\ntreshold = 0.5",
        "Every key in kws.toml must be one that kws knows. Received: `treshold` in `decision`. "
        "Did you mean `threshold`? Known there: threshold, thresholds, false_alarms_per_hour, "
        "smoothing_ms, refractory_ms, patience, phrases.",
    ),
    "a table misspelt": (
        "[desicion]\nthreshold = 0.5",
        "Every key in kws.toml must be one that kws knows. Received: `desicion` in the top level. "
        f"Did you mean `decision`? Known there: {', '.join(Config.__struct_fields__)}.",
    ),
    "a keyword misspelt": (
        "[decision.thresholds]\nstopp = 0.5",
        "`[decision.thresholds]` must name keywords of the model `loud`. Received: `stopp`. Did "
        "you mean `stop`? It knows: stop, go.",
    ),
    "a bracket missing": (
        "[gate\nenabled = true",
        "kws.toml must be TOML. Received: Expected ']' at the end of a table declaration (at line "
        "1, column 6). Correct that line.",
    ),
    "quotes missing": (
        "[model]\nname = commands",
        "kws.toml must be TOML. Received: Invalid value (at line 2, column 8). Correct that line.",
    ),
    "no UTF-8": (
        "[model]\nname = 'caf\xe9'",
        "kws.toml must be UTF-8 text. Received: byte 0xe9 at offset 19. Save it as UTF-8.",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_that_break_a_rule_are_refused(listen, recording, tmp_path, text, message):
    (tmp_path / "kws.toml").write_text(text, encoding="latin-1")
    ended = listen("--input", recording, "--config", "kws.toml")
    assert complains(ended, CONFIG, message) == ""


class FakePyAudio(types.ModuleType):
    """PyAudio on a machine whose only microphones are those it is given."""

    def __init__(self, *names):
        super().__init__("pyaudio")
        self._infos = [
            {"index": index, "name": name, "maxInputChannels": 1, "defaultSampleRate": 16_000.0}
            for index, name in enumerate(names)
        ]

    def PyAudio(self):
        return self

    def get_device_count(self):
        return len(self._infos)

    def get_device_info_by_index(self, index):
        return self._infos[index]

    def get_default_input_device_info(self):
        if not self._infos:
            raise OSError("No Default Input Device Available")
        return self._infos[0]

    def terminate(self):
        pass


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["USB Headset", "Webcam"],
            "`--device` must name a connected microphone. Received: USB Hedset. Did you mean "
            "`USB Headset`? Connected: 0 (USB Headset), 1 (Webcam).",
        ),
        (
            [],
            "No microphone is connected. Plug one in; `kws devices` lists the microphones.",
        ),
    ],
    ids=["others", "none"],
)
def test_a_microphone_that_pyaudio_does_not_know_is_refused(listen, monkeypatch, names, message):
    monkeypatch.setitem(sys.modules, "pyaudio", FakePyAudio(*names))
    assert complains(listen("--device", "USB Hedset"), AUDIO, message) == ""


@pytest.fixture
def arecord(tmp_path, monkeypatch):
    """Put a shell script in arecord's place, and take PyAudio away."""
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("kws.sources.arecord.has_sound_card", lambda: True)

    def install(script):
        program = tmp_path / "arecord"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return install


def test_a_microphone_that_arecord_cannot_open_is_refused(listen, arecord):
    arecord(
        "[ $1 = -L ] && printf 'default\\n    Built-in Audio\\n' && exit\n"
        "echo 'ALSA lib pcm.c:2666: Unknown PCM USB Headset' >&2\n"
        "echo 'arecord: main:831: audio open error: No such file or directory' >&2\nexit 1"
    )
    message = (
        "arecord (USB Headset) gave no audio: ALSA lib pcm.c:2666: Unknown PCM USB Headset; "
        "arecord: main:831: audio open error: No such file or directory. Close the program that "
        "uses the microphone, or choose another with `--device`; `kws devices` lists them."
    )
    assert complains(listen("--device", "USB Headset"), AUDIO, message) == ""


def test_a_microphone_that_is_unplugged_is_heard_up_to_there(
    listen, arecord, wav, detections, tmp_path
):
    (tmp_path / "audio").write_bytes(wav[HEADER_BYTES:40_044])
    arecord(
        f"/bin/cat {tmp_path}/audio\n"
        "echo 'arecord: pcm_read:2221: read error: No such device' >&2\nexit 1"
    )
    message = (
        "arecord (default device) ended: arecord: pcm_read:2221: read error: No such device. Close "
        "the program that uses the microphone, or choose another with `--device`; `kws devices` "
        "lists them."
    )
    assert without_peaks(complains(listen(), AUDIO, message)) == detections[:1]


@pytest.mark.usefixtures("arecord")
def test_without_anything_that_can_record_a_microphone_is_refused(listen):
    message = (
        "A microphone needs PyAudio or arecord, and neither is installed. Run `pip install "
        "'kws[mic]'` or `sudo apt install alsa-utils`."
    )
    assert complains(listen("--device", "USB Headset"), AUDIO, message) == ""
