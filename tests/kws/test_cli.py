import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import wave
from pathlib import Path

import pytest

from kws import command_group
from kws.manifest import CalibrationPoint, DataSource, FeatureSettings, StateTensor

WORDS_AT_S = (0.5, 1.8)


@pytest.fixture
def cut_short(recording, tmp_path):
    path = tmp_path / "cut.wav"
    path.write_bytes(recording.read_bytes()[:70_044])
    return path


def program(*arguments):
    """Return the command line that runs kws in a process of its own."""
    return [sys.executable, "-m", "kws", *map(str, arguments)]


def start(*arguments):
    pipe = subprocess.PIPE
    return subprocess.Popen(program(*arguments), stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def listening(kws, model, recording, *options):
    return kws("listen", "--model", model, "--input", recording, "--no-vad", *options)


def lines(out, *, peaks=False):
    """The events on standard output, those that tell a peak left out."""
    events = [json.loads(line) for line in out.splitlines()]
    return [event for event in events if peaks or event["event"] != "peak"]


def test_listening_to_a_file_prints_a_line_a_word_and_a_summary(kws, model, recording):
    code, out, err = listening(kws, model, recording)
    first, second, summary = out.splitlines()
    assert (code, err) == (0, "")
    assert first.split() == ["0.52", "s", "stop", "0.53"]
    assert second.split() == ["1.81", "s", "stop", "0.53"]
    assert summary.startswith("3.0 s of audio, 2 detections, ")
    assert summary.endswith(" ms CPU per second of audio")


def test_with_json_standard_output_holds_json_lines_only_and_the_end_comes_last(
    kws, model, recording
):
    code, out, err = listening(kws, model, recording, "--json")
    *detections, end = lines(out)
    assert (code, err) == (0, "")
    assert [list(it) for it in detections] == 2 * [
        ["event", "keyword", "score", "start_s", "end_s", "model"]
    ]
    assert [(it["event"], it["keyword"], it["end_s"]) for it in detections] == [
        ("detection", "stop", 0.515),
        ("detection", "stop", 1.815),
    ]
    assert list(end) == ["event", "audio_s", "detections", "cpu_s"]
    assert (end["event"], end["audio_s"], end["detections"]) == ("end", 3.0, 2)
    assert 0 < end["cpu_s"] < 5


def test_the_peak_of_a_detection_comes_on_a_line_of_its_own_after_it(kws, model, recording):
    _, out, _ = listening(kws, model, recording, "--json")
    *events, _ = lines(out, peaks=True)
    for detection, peak in zip(events[::2], events[1::2], strict=True):
        assert peak == detection | {"event": "peak", "peak": peak["peak"]}
        assert peak["peak"] > detection["score"]


@pytest.mark.parametrize("chunk_ms", [10, 37, 1000])
def test_chunks_of_another_length_change_nothing(kws, model, recording, chunk_ms):
    _, expected, _ = listening(kws, model, recording, "--json")
    _, out, _ = listening(kws, model, recording, "--json", "--chunk-ms", chunk_ms)
    assert lines(out)[:-1] == lines(expected)[:-1]


def test_a_truncated_file_gives_its_detections_then_the_end_then_the_error(kws, model, cut_short):
    code, out, err = listening(kws, model, cut_short, "--json")
    assert [event["event"] for event in lines(out)] == ["detection", "detection", "end"]
    assert lines(out)[-1]["audio_s"] == 2.188
    assert err == (
        "Error: A WAV must hold all the samples its header promises. Received: 35000 of 48000 "
        f"samples (2.188 of 3.000 s) in {cut_short}. All of them were used; the file is cut "
        "short or its header is wrong: copy or record it again.\n"
    )
    assert code == 3


def test_what_is_sure_only_after_the_last_sample_is_heard_too(kws, model, recording, tmp_path):
    short = tmp_path / "short.wav"
    with wave.open(str(recording)) as whole, wave.open(str(short), "wb") as part:
        part.setparams(whole.getparams())
        whole.setpos(8000)
        part.writeframes(whole.readframes(480))  # one frame; the smoothing wants two
    _, out, _ = listening(kws, model, short, "--json", "--threshold", "0.6")
    detection, end = lines(out)
    assert (detection["end_s"], end["audio_s"], end["detections"]) == (0.03, 0.03, 1)


def test_raw_samples_and_a_wav_come_through_standard_input(model, recording):
    arguments = ("listen", "--model", model, "--input", "-", "--no-vad", "--json")
    for data in (recording.read_bytes(), recording.read_bytes()[44:]):
        run = subprocess.run(
            program(*arguments),
            input=data,
            capture_output=True,
            check=True,
        )
        end = lines(run.stdout.decode())[-1]
        assert (end["audio_s"], end["detections"]) == (3.0, 2)


def test_the_audio_source_may_be_an_argument(kws, model, recording):
    expected = listening(kws, model, recording, "--json")[1]
    for words in ([recording], [recording, "--input", recording]):
        code, out, err = kws("listen", *words, "--model", model, "--no-vad", "--json")
        assert (code, err) == (0, "")
        assert lines(out)[:-1] == lines(expected)[:-1] != []
    code, out, err = kws("listen", recording, "--input", "mic", "--model", model)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"Error: Give the audio source once. Received: {recording}, and --input mic."
    )


def test_two_models_listen_to_one_source(kws, make_model, model, recording, tmp_path):
    other = tmp_path / "other.tflite"
    other.write_bytes(make_model(name="other", labels=("_silence_", "halt", "go")))
    code, out, err = listening(kws, model, recording, "--model", other, "--json")
    *detections, end = lines(out)
    assert (code, err, end["detections"]) == (0, "", 4)
    assert [(it["keyword"], it["model"]) for it in detections] == 2 * [
        ("stop", "loud"),
        ("halt", "other"),
    ]
    ends = [it["end_s"] for it in detections]
    assert ends == sorted(ends)


def test_a_model_given_twice_is_refused(kws, model, recording):
    code, out, err = listening(kws, model, recording, "--model", model)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "Error: Give each --model once."


def test_a_list_of_sources_is_for_the_daemon(kws, tmp_path):
    path = tmp_path / "kws.toml"
    path.write_text("[[sources]]\ninput = 'a.wav'\n")
    assert kws("listen", "--config", path) == (
        2,
        "",
        f"Error: `kws listen` takes one [source] from kws.toml. Received: [[sources]] in {path}. "
        f"Write [source], or run `kws daemon --config {path}`.\n",
    )


def test_a_list_of_models_is_listened_for_on_one_source(kws, model, recording, tmp_path):
    path = tmp_path / "kws.toml"
    path.write_text(
        f"[gate]\nenabled = false\n[[models]]\nname = '{model}'\n[[models]]\nname = 'computer'\n"
    )
    code, out, err = kws("listen", recording, "--config", path, "--json")
    assert (code, err) == (0, "")
    assert [event.get("keyword") for event in lines(out)] == ["stop", "stop", None]
    path.write_text(path.read_text() + "[models.decision]\nthreshold = 0.2\n")
    assert kws("listen", recording, "--config", path, "--threshold", "1")[0] == 0


def test_a_threshold_by_name_holds_for_the_model_that_knows_the_keyword(
    kws, model, recording, tmp_path
):
    path = tmp_path / "kws.toml"
    path.write_text("[gate]\nenabled = false\n[decision.thresholds]\nstop = 1.0\n")
    command = ("listen", recording, "--config", path, "--model", model, "--model", "computer")
    assert lines(kws(*command, "--json")[1])[-1]["detections"] == 0
    path.write_text("[decision.thresholds]\nstpo = 1.0\n")
    code, _, err = kws(*command)
    assert code == 2
    assert "Received: `stpo`. Did you mean `stop`?" in err


def test_options_go_before_the_settings_file(kws, model, recording, tmp_path):
    settings = tmp_path / "kws.toml"
    settings.write_text(
        f"[model]\nname = '{model}'\n[source]\ninput = '{recording}'\n[gate]\nenabled = false\n"
        "[decision.thresholds]\nstop = 1.0\n"
    )
    assert lines(kws("listen", "--config", settings, "--json")[1])[-1]["detections"] == 0
    _, out, _ = kws("listen", "--config", settings, "--json", "--threshold", "0.5")
    assert lines(out)[-1]["detections"] == 2


def test_a_threshold_on_the_command_line_replaces_a_budget_in_the_file(
    kws, model, recording, tmp_path
):
    settings = tmp_path / "kws.toml"
    settings.write_text("[decision]\nfalse_alarms_per_hour = 1.0\n")
    code, _, err = listening(kws, model, recording, "--config", settings)
    assert code == 2
    assert "`false_alarms_per_hour` must lie in what the model `loud` was calibrated" in err
    code, _, _ = listening(kws, model, recording, "--config", settings, "--threshold", "0.5")
    assert code == 0


def test_a_budget_takes_its_threshold_from_the_calibration_table(
    kws, make_model, recording, tmp_path
):
    model = tmp_path / "calibrated.tflite"
    points = tuple(
        CalibrationPoint(false_alarms_per_hour=rate, thresholds={"stop": at, "go": at})
        for rate, at in ((0.1, 1.0), (1.0, 0.5))
    )
    model.write_bytes(make_model(calibration=points))
    for rate, n_detections in (("0.1", 0), ("1", 2)):
        _, out, _ = listening(kws, model, recording, "--json", "--false-alarms-per-hour", rate)
        assert lines(out)[-1]["detections"] == n_detections


def test_hooks_run_and_are_waited_for(kws, model, recording, tmp_path):
    heard = tmp_path / "heard"
    settings = tmp_path / "kws.toml"
    settings.write_text(
        "[[hooks]]\nkeyword = '*'\nshell = true\n"
        f"command = 'sleep 0.2; echo $KWS_KEYWORD >> {heard}'\n"
    )
    code, _, _ = listening(kws, model, recording, "--config", settings)
    assert (code, heard.read_text()) == (0, "stop\nstop\n")


def test_a_progress_bar_stays_off_what_is_not_a_terminal(kws, model, recording):
    assert listening(kws, model, recording)[2] == ""


def test_verbose_says_when_it_hears_and_only_on_standard_error(model, recording):
    run = subprocess.run(
        program("-v", "listen", "--no-vad", "--json", "--model", model, "--input", recording),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == f"INFO: Processed the first chunk of {recording}.\n"
    assert len(lines(run.stdout)) == 3


BAD = {
    "a threshold beyond 1": (
        ["--threshold", "1.5"],
        2,
        "Invalid value for '--threshold': 1.5 is not in the range 0<=x<=1.",
    ),
    "a threshold that is no number": (
        ["--threshold", "nan"],
        2,
        "Invalid value for '--threshold': nan is not a finite number.",
    ),
    "a budget of nothing": (
        ["--false-alarms-per-hour", "0"],
        2,
        "Invalid value for '--false-alarms-per-hour': 0.0 is not in the range x>0.",
    ),
    "a threshold and a budget": (
        ["--threshold", "0.5", "--false-alarms-per-hour", "1"],
        2,
        "`threshold` and `false_alarms_per_hour` exclude each other. Received: both. Keep one.",
    ),
    "a budget without a table": (
        ["--false-alarms-per-hour", "1"],
        2,
        "`false_alarms_per_hour` must lie in what the model `loud` was calibrated for: none: it "
        "has no calibration table. Received: 1. Choose from that, or set `threshold`.",
    ),
    "chunks too short": (
        ["--chunk-ms", "5"],
        2,
        "Invalid value for '--chunk-ms': 5 is not in the range 10<=x<=1000.",
    ),
    "no settings file": (
        ["--config", "missing.toml"],
        2,
        "The configuration file must be readable. Received: missing.toml (No such file or "
        "directory). Give its path with --config.",
    ),
    "no input": (
        ["--input", "missing.wav"],
        3,
        "The input must be `mic`, `-` or a file that can be read. Received: missing.wav (No such "
        "file or directory). Check the path and its permissions.",
    ),
    "an option misspelt": (
        ["--treshold", "0.5"],
        2,
        "No such option '--treshold'. Did you mean '--threshold'?",
    ),
}


@pytest.mark.parametrize(("options", "code", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_in_one_line(
    kws, model, monkeypatch, tmp_path, options, code, message
):
    monkeypatch.chdir(tmp_path)
    ended, out, err = kws("listen", "--model", model, "--input", "-", *options)
    assert (ended, out) == (code, "")
    assert err.splitlines()[-1] == f"Error: {message}"


def test_an_unknown_model_is_an_error_of_its_own(kws, recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = listening(kws, "nobody", recording)
    assert (code, out) == (4, "")
    assert err.startswith(
        "Error: A model must be a bundled model's name or a file. Received: nobody."
    )


def test_a_model_at_another_rate_is_refused(kws, make_model, recording, tmp_path):
    model = tmp_path / "slow.tflite"
    features = FeatureSettings(sample_rate_hz=8000)
    model.write_bytes(make_model(features=features))
    code, _, err = listening(kws, model, recording)
    assert (code, err) == kws("bench", "--model", model)[::2]
    assert code == 4
    assert err == (
        "Error: A model must take audio at 16000 Hz, the rate of every source. Received: `loud` "
        "at 8000 Hz. Train it again at that rate.\n"
    )


def test_a_hook_for_an_unknown_keyword_is_refused_before_the_source_is_opened(kws, model, tmp_path):
    settings = tmp_path / "kws.toml"
    settings.write_text("[[hooks]]\nkeyword = 'stopp'\ncommand = ['true']\n")
    code, out, err = listening(kws, model, "missing.wav", "--config", settings)
    assert (code, out) == (5, "")
    assert "stopp" in err
    assert "Did you mean `stop`?" in err
    assert "missing.wav" not in err


def test_a_mistyped_command_gets_a_suggestion(kws):
    code, out, err = kws("lissten")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "Error: No such command `lissten`. Did you mean `listen`?"


def test_version_is_that_of_the_distribution(kws):
    assert kws("--version") == (0, "kws, version 0.1.0\n", "")


def test_a_full_disk_under_standard_output_stops_no_audio_but_is_an_error(model, recording):
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            program("listen", "--no-vad", "--json", "--model", model, "--input", recording),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    lost = "WARNING: A sink failed on an event: [Errno 28] No space left on device."
    *warnings, error = run.stderr.splitlines()
    assert (run.returncode, warnings) == (1, 4 * [lost])  # two detections, two peaks
    assert error == (
        "Error: Files and standard output must be usable. Received: [Errno 28] No space left on "
        "device. Check the disk and the permissions."
    )


def test_a_reader_that_leaves_ends_it_quietly(model, recording):
    process = start("listen", "--model", model, "--input", "-", "--no-vad")
    process.stdout.close()
    process.stdin.buffer.write(recording.read_bytes())
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(20) == 141
    process.stderr.close()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_ends_it_with_its_hooks_and_without_a_traceback(
    model, recording, tmp_path, number, code
):
    settings, begun, ended = (tmp_path / name for name in ("kws.toml", "begun", "ended"))
    settings.write_text(
        "[[hooks]]\nkeyword = 'stop'\nshell = true\n"
        f"""command = 'trap "touch {ended}" TERM; touch {begun}; sleep 9 & wait'\n"""
    )
    process = start(
        "listen", "--model", model, "--input", "-", "--no-vad", "--json", "--config", settings
    )
    process.stdin.buffer.write(recording.read_bytes()[:40_000])
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["keyword"] == "stop"
    while not begun.exists():
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=4)
    assert (process.returncode, lines(out)) == (code, [])
    assert "Traceback" not in err
    assert ended.exists()


def test_without_standard_streams_it_still_runs(model, recording):
    command = program("listen", "--no-vad", "--model", model, "--input", recording)
    run = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command],
        check=False,
    )
    assert run.returncode == 0


def test_models_lists_names_sizes_and_keywords(kws, model, monkeypatch):
    monkeypatch.setattr("kws.model.bundled_models", lambda: {"loud": model})
    assert kws("models") == (0, "loud                  1 kB  stop, go\n", "")


def test_info_says_in_words_what_the_manifest_says(kws, make_model, tmp_path):
    path = tmp_path / "full.tflite"
    content = make_model(
        description="Fires when it is loud.",
        licence="Apache-2.0",
        states=(StateTensor(input="a", output="b", shape=(1, 2)),),
        calibration=(
            CalibrationPoint(false_alarms_per_hour=0.5, thresholds={"stop": 0.9, "go": 0.8}),
        ),
        data=(
            DataSource(name="Bursts", licence="CC0", clips=1),
            DataSource(name="B", licence="MIT", hours=2.5),
        ),
    )
    path.write_bytes(content)
    code, out, err = kws("info", path)
    assert (code, err) == (0, "")
    size_kb = path.stat().st_size / 1000
    assert out == textwrap.dedent(f"""\
        name          loud
        description   Fires when it is loud.
        size          {size_kb:.1f} kB, float32
        keywords      stop, go
        labels        _silence_, stop, go
        features      13 mfcc values from 25 ms every 10 ms at 16000 Hz
        kind          step: 1 frame per call, 1 state kept between calls
        latency       a call every 10 ms; trained for 0 ms after the end of a word
        decision      threshold 0.5, smoothing 20 ms, refractory 600 ms
        calibration   0.5 false alarms/h: stop 0.9, go 0.8
        data          Bursts, 1 clip, CC0
        data          B, 2.5 h, MIT
        licence       Apache-2.0
        """)


def test_what_the_terminal_cannot_show_is_escaped(make_model, tmp_path):
    path = tmp_path / "foreign.tflite"
    path.write_bytes(make_model(labels=("_silence_", "stopp", "los!", "głos")))
    done = subprocess.run(
        program("info", path),
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "keywords      stopp, los!, g\\u0142os\n" in done.stdout


def test_control_characters_of_a_model_file_reach_no_terminal(kws, make_model, tmp_path):
    from kws.manifest import DataSource

    evil = "\x1b]0;OWNED\x07\x1b[2J\x9b31m\x7f\u202e\nlicence       free"
    path = tmp_path / "evil.tflite"
    data = (DataSource(name=evil, licence=evil),)
    path.write_bytes(make_model(description=evil, licence=evil, data=data))
    code, out, _ = kws("info", path)
    assert code == 0
    assert out.replace("\n", "").isprintable()
    assert "\nlicence       free" not in out
    assert r"\x1b]0;OWNED\x07\x1b[2J\x9b31m\x7f\u202e\nlicence" in out
    _, out, _ = kws("info", path, "--json")
    assert out.removesuffix("\n").isprintable()
    assert json.loads(out)["description"] == evil


@pytest.mark.parametrize("name", ["commands", "computer"])
def test_info_fits_80_columns_and_loses_nothing(kws, name):
    from kws.commands.info import facts
    from kws.manifest import read_manifest
    from kws.model import model_path

    _, out, _ = kws("info", name)
    assert max(map(len, out.splitlines())) <= 80
    manifest, content = read_manifest(model_path(name))
    expected = [f"{title} {text}" for title, text in facts(manifest, n_bytes=len(content))]
    assert out.split() == " ".join(expected).split()


def test_info_as_json_is_the_manifest_and_the_size(kws, model):
    code, out, err = kws("info", model, "--json")
    assert (code, err) == (0, "")
    everything = json.loads(out)
    assert everything["labels"] == ["_silence_", "stop", "go"]
    assert everything["features"]["n_mfcc"] == 13
    assert everything["model_bytes"] == model.stat().st_size


def test_devices_are_listed_with_the_default_marked(kws, monkeypatch):
    from kws.sources import Device

    found = [
        Device(id="0", name="Built-in", default=False, source="pyaudio"),
        Device(id="3", name="USB Audio", default=True, source="pyaudio"),
    ]
    monkeypatch.setattr("kws.sources.list_devices", lambda: found)
    code, out, err = kws("devices")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["0", "Built-in", "(pyaudio)"],
        ["*", "3", "USB", "Audio", "(pyaudio)"],
    ]


def test_without_microphones_devices_points_to_the_doctor(kws, monkeypatch):
    monkeypatch.setattr("kws.sources.list_devices", list)
    assert kws("devices") == (0, "", "No microphone was found; `kws doctor` says more.\n")


def test_the_demo_plays_the_bundled_recording_to_the_bundled_model(
    kws, model, recording, monkeypatch
):
    from kws.matching import LabelledRecording, Word

    first, second = (Word(word="stop", start_s=at, end_s=at + 0.4) for at in WORDS_AT_S)
    other = Word(word="go", start_s=2.5, end_s=2.8)
    labels = LabelledRecording(recording="demo.wav", duration_s=3.0, words=[first, second, other])
    monkeypatch.setattr("kws.model.bundled_models", lambda: {"commands": model, "computer": model})
    monkeypatch.setattr("kws.commands.demo.load_demo", lambda *, name: (labels, recording))
    monkeypatch.setattr("webrtcvad.Vad.is_speech", lambda *block: True)
    code, out, err = kws("demo")
    assert (code, err) == (0, "")
    title, *marks, totals, at_lower = out.splitlines()[:6]
    assert title.endswith("Model `commands`:")
    assert [line.split()[4 - ("missed" in line)] for line in marks] == ["ok", "ok", "missed:"]
    assert totals.startswith("2 matched, 1 missed, 0 false; ")
    assert at_lower.startswith("With --threshold 0.6: ")


@pytest.fixture
def workbench(monkeypatch, tmp_path):
    """Install a distribution with commands in the group `kws.commands`."""
    (tmp_path / "bench_fake.py").write_text(
        "import click\n\n\n@click.command()\ndef sing():\n"
        '    """Sing a song."""\n    import nowhere_to_be_found\n'
    )
    info = tmp_path / "bench_fake-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-fake\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[kws.commands]\nsing = bench_fake:sing\nbroken = nowhere_to_be_found:command\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    command_group._entry_points.cache_clear()
    yield
    command_group._entry_points.cache_clear()
    sys.modules.pop("bench_fake", None)


@pytest.mark.usefixtures("workbench")
def test_commands_of_the_workbench_are_listed_even_where_they_cannot_be_loaded(kws):
    code, out, _ = kws("--help")
    assert code == 0
    listed = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line}
    assert listed["sing"] == "Sing a song."
    assert listed["broken"] == "Needs pip install 'kws[train]'."


@pytest.mark.usefixtures("workbench")
@pytest.mark.parametrize("command", [["sing"], ["broken"], ["broken", "--out", "x", "y"]])
def test_a_command_whose_packages_are_missing_says_how_to_install_them(kws, command):
    code, out, err = kws(*command)
    assert (code, out) == (2, "")
    assert err == (
        f"Error: The packages that `kws {command[0]}` needs must be installed. Received: No module "
        "named 'nowhere_to_be_found'. Run `pip install 'kws[train]'`.\n"
    )


@pytest.mark.usefixtures("workbench")
def test_listening_loads_no_command_of_the_workbench(kws, model, recording):
    listening(kws, model, recording)
    assert "bench_fake" not in sys.modules


def test_the_command_itself_loads_nothing_heavy():
    run = subprocess.run(
        [sys.executable, "-c", "import kws.cli, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"numpy", "msgspec", "importlib.metadata", "webrtcvad"} & set(run.stdout.split())


def test_on_a_terminal_no_progress_stands_before_a_detection(model, recording):
    """Both streams on one terminal: the bar is wiped before a line is printed on its line."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        program("listen", "--no-vad", "--model", model, "--input", recording),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65_536):
            shown += block
    except OSError:  # Linux says EIO at a terminal's end
        pass
    os.close(ours)
    assert process.wait(10) == 0
    hits = [line for line in shown.decode().split("\r\n") if " stop " in line]
    assert len(hits) == 2
    for line in hits:
        assert line.rpartition("\r\x1b[J\x1b[?25h")[2].split()[1:3] == ["s", "stop"]


def test_a_command_is_heard_like_the_file_it_prints(kws, model, recording, tmp_path):
    config = tmp_path / "command.toml"
    config.write_text(f"[source]\ncommand = ['cat', '{recording}']\n")
    options = ("--model", model, "--no-vad", "--json")
    code, out, err = kws("listen", "--config", config, *options)
    *detections, end = lines(out)
    _, wanted, _ = listening(kws, model, recording, "--json")
    assert (code, err, end["event"]) == (0, "", "end")
    assert detections == lines(wanted)[:-1] != []
