import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import wave
from pathlib import Path

import msgspec
import pytest

from kws.daemon.capture_process import CAPTURE_COMMAND
from kws.daemon.service import Daemon
from kws.daemon.snapshot import Snapshot
from kws.daemon.source_supervisor import SourceSupervisor
from kws.daemon.systemd import SystemdNotifier
from kws.errors import AudioError, ConfigError, HookError, ModelError
from kws.events import Detection, End, Peak, StateChange
from kws.model import open_model

from .conftest import OPENED, census, is_alive, said, until

PIECE = 2_560
NO_GATE = "[gate]\nenabled = false\n"


class Printer:
    """A sink that keeps events; `hangs` makes it one that never returns."""

    def __init__(self, *, hangs=False):
        self.events, self._hangs = [], hangs

    def send(self, event):
        self.events.append(event)
        if self._hangs:
            threading.Event().wait(60)

    def close(self):
        pass

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def detections(self):
        return [(one.source, one.model, one.keyword, one.end_s) for one in self.of(Detection)]

    def states(self):
        return [(one.event, one.source) for one in self.of(StateChange)]


class Fifo:
    """A microphone whose audio the test gives, block by block."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def script(self):
        return f"{OPENED} echo $$ >> {self.path}.pids; exec cat {self.path}"

    def pids(self):
        return said(self.path.with_name(self.path.name + ".pids")).split()

    async def write(self, audio):
        while audio:
            with contextlib.suppress(BlockingIOError):
                audio = audio[os.write(self._end, audio) :]
            await asyncio.sleep(0.005)

    def close(self):
        os.close(self._end)


@pytest.fixture
def write(tmp_path, model):
    """Write kws.toml with the loud model and no gate; return its path."""

    def write(text, *, models=f"[model]\nname = '{model}'\n"):
        path = tmp_path / "kws.toml"
        path.write_text(NO_GATE + models + text)
        return path

    return write


@pytest.fixture
def fifo(tmp_path):
    pipe = Fifo(tmp_path / "fifo")
    yield pipe
    pipe.close()


@pytest.fixture
def audio(recording):
    with wave.open(str(recording)) as file:
        return file.readframes(file.getnframes())


def listen(path, *, driver=None, printer=None, capture_command=CAPTURE_COMMAND, notifier=None):
    """Run a daemon while a test drives it; return the exit code and what was printed."""
    printer = printer or Printer()
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    async def run():
        daemon = Daemon(path, printer=printer, capture_command=capture_command, notifier=notifier)
        tasks = [asyncio.create_task(daemon.run())]
        if driver:
            tasks.append(asyncio.create_task(driver(printer)))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=60)
        for task in reversed(tasks):
            if task not in done:  # the test has failed
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if driver:
            tasks[1].result()
        return tasks[0].result()

    try:
        return asyncio.run(run()), printer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(number):
    os.kill(os.getpid(), number)


def test_files_are_heard_to_their_ends_by_every_model(
    write, recording, make_model, tmp_path, model
):
    (tmp_path / "other.tflite").write_bytes(
        make_model(name="other", labels=("_silence_", "halt", "go"))
    )
    models = f"[[models]]\nname = '{model}'\n[[models]]\nname = '{tmp_path}/other.tflite'\n"
    config = write(
        f"[[sources]]\nname = 'desk'\ninput = '{recording}'\n"
        f"[[sources]]\nname = 'door'\ninput = '{recording}'\n",
        models=models,
    )
    before = census()
    code, printer = listen(config)
    assert code == 0
    assert {one[:3] for one in printer.detections()} == {
        (source, heard, word)
        for source in ("desk", "door")
        for heard, word in (("loud", "stop"), ("other", "halt"))
    }
    assert len(printer.detections()) == 8
    assert {(end.source, end.audio_s, end.detections) for end in printer.of(End)} == {
        ("desk", 3.0, 4),
        ("door", 3.0, 4),
    }
    assert printer.states()[0] == ("start", None)
    assert printer.states()[-1] == ("stop", None)
    assert sorted(printer.states()[1:-1]) == [("listening", "desk"), ("listening", "door")]
    assert census()[2] == before[2]


def test_models_that_share_a_keyword_run_its_hook_once_for_an_utterance(
    write, recording, make_model, tmp_path, model
):
    """Two people's models of one word ran the hooks twice."""
    (tmp_path / "other.tflite").write_bytes(make_model(name="other"))
    config = write(
        f"[source]\ninput = '{recording}'\n",
        models=f"[[models]]\nname = '{model}'\n[[models]]\nname = '{tmp_path}/other.tflite'\n",
    )
    code, printer = listen(config)
    assert code == 0
    assert [one[1:3] for one in printer.detections()] == [("loud", "stop")] * 2


def test_a_file_is_heard_as_kws_listen_hears_it(write, recording, kws, caplog):
    config = write(f"[source]\nname = 'desk'\ninput = '{recording}'\n")
    caplog.set_level("INFO")
    _, printer = listen(config)
    logged = [one for one in caplog.records if one.getMessage().startswith("desk: detected")]
    assert [(one.getMessage(), one.keyword, one.end_s) for one in logged] == [
        (f"desk: detected `stop` ({one.score:.2f}).", "stop", one.end_s)
        for one in printer.of(Detection)
    ]
    peaks = [(one.source, one.keyword, one.end_s) for one in printer.of(Peak)]
    assert peaks == [("desk", "stop", one.end_s) for one in printer.of(Detection)]
    code, out, _ = kws("listen", "--config", config, "--json")
    heard = [(one.keyword, one.score, one.end_s) for one in printer.of(Detection)]
    assert heard
    assert [f'"keyword":"{keyword}","score":{score}' in out for keyword, score, _ in heard]
    assert (code, out.count('"detection"')) == (0, len(heard))


def test_a_broken_file_ends_the_daemon_with_its_error_when_the_others_have_ended(
    write, recording, tmp_path, caplog
):
    (tmp_path / "empty.wav").touch()
    config = write(
        f"[[sources]]\ninput = '{recording}'\n[[sources]]\ninput = '{tmp_path}/empty.wav'\n"
    )
    printer = Printer()
    with pytest.raises(AudioError, match="An audio file must hold audio"):
        listen(config, printer=printer)
    assert len(printer.of(Detection)) == 2
    assert len(printer.of(End)) == 2
    assert ("error", f"{tmp_path}/empty.wav") in printer.states()
    logged = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert len(logged) == 1
    assert logged[0].startswith(f"{tmp_path}/empty.wav: An audio file must hold audio")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[gate]\n", ConfigError),
        ("[[hooks]]\nkeyword = 'halt'\ncommand = 'true'\n", HookError),
        ("[model]\nname = 'none'\n", ModelError),
        ("[[models]]\n[[models]]\n", ConfigError),
    ],
)
def test_a_bad_configuration_is_an_error_at_the_start(write, text, kind):
    models = {} if "model" not in text else {"models": ""}
    with pytest.raises(kind):
        listen(write(text, **models))


def test_sigterm_ends_it_in_order(write, fifo, capture_script, audio):
    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        await fifo.write(audio[: 2 * 16_000])
        await until(lambda: printer.of(Detection))
        tell(signal.SIGTERM)

    code, printer = listen(write(""), driver=drive, capture_command=capture_script(fifo.script()))
    assert code == 0
    assert printer.states() == [("start", None), ("listening", "mic"), ("stop", None)]
    assert not any(map(is_alive, fifo.pids()))


def test_ctrl_c_ends_it_with_its_own_code(write, capture_script):
    async def drive(printer):
        await until(lambda: ("listening", "mic") in printer.states())
        tell(signal.SIGINT)

    script = f"{OPENED} head -c 100 /dev/zero; exec sleep 60"
    assert listen(write(""), driver=drive, capture_command=capture_script(script))[0] == 130


def test_a_word_is_not_waited_for_but_heard_to_its_end_at_sigterm(
    write, fifo, capture_script, audio, tmp_path
):
    """What was said last before the end is still detected, and its hook is still started."""
    config = write(
        "[decision]\nsmoothing_ms = 200\nthreshold = 0.9\n"
        f"[[hooks]]\nkeyword = 'stop'\ncommand = 'touch {tmp_path}/ran'\n"
    )

    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        await fifo.write(audio[: 2 * 10_000])
        await until(lambda: ("listening", "mic") in printer.states())
        tell(signal.SIGTERM)

    _, printer = listen(config, driver=drive, capture_command=capture_script(fifo.script()))
    assert [one[2] for one in printer.detections()] in ([], ["stop"])
    assert (tmp_path / "ran").exists() == bool(printer.detections())


def test_a_detection_that_is_held_at_sigterm_is_delivered(
    write, fifo, capture_script, audio, make_model, model, tmp_path
):
    """Where models share a keyword, a detection is held until no other can be surer."""
    (tmp_path / "other.tflite").write_bytes(make_model(name="other"))
    config = write(
        "", models=f"[[models]]\nname = '{model}'\n[[models]]\nname = '{tmp_path}/other.tflite'\n"
    )

    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        await fifo.write(audio[: 2 * 9_000])
        await until(lambda: ("listening", "mic") in printer.states())
        await asyncio.sleep(0.3)
        assert printer.detections() == []
        tell(signal.SIGTERM)

    _, printer = listen(config, driver=drive, capture_command=capture_script(fifo.script()))
    assert [one[2] for one in printer.detections()] == ["stop"]
    assert printer.states()[-1] == ("stop", None)


def test_under_load_with_everything_stuck_it_still_ends_in_two_seconds(
    write, capture_script, model, tmp_path
):
    """A flood of audio, a capture process and a hook that defy SIGTERM, a sink that hangs."""
    defiant = 'trap "" TERM; echo $$ >> $0.pids; sleep 60 & wait; wait'
    (tmp_path / "hook").write_text(f"#!/bin/sh\n{defiant}\n")
    (tmp_path / "hook").chmod(0o755)
    config = write(f"[[hooks]]\nkeyword = '*'\ncommand = '{tmp_path}/hook'\n")
    flood = f"{tmp_path}/loud"
    (tmp_path / "loud").write_bytes(bytes(16_000) + b"\x00\x40\x00\xc0" * 8_000)
    script = f"trap '' TERM; echo $$ > {tmp_path}/recorder; {OPENED} while :; do cat {flood}; done"
    asked_s = []

    async def drive(printer):
        await until(lambda: said(tmp_path / "hook.pids"))
        asked_s.append(time.monotonic())
        tell(signal.SIGTERM)

    printer = Printer(hangs=True)
    listen(config, driver=drive, capture_command=capture_script(script), printer=printer)
    took_s = time.monotonic() - asked_s[0]
    pids = said(tmp_path / "hook.pids").split() + said(tmp_path / "recorder").split()
    asyncio.run(until(lambda: not any(map(is_alive, pids))))
    assert took_s < 3  # two, and what a loaded machine adds


@pytest.mark.parametrize("at_s", [0.3, 0.55, 0.7, 1.85])
def test_no_word_is_lost_or_doubled_across_a_reload(
    write, fifo, capture_script, audio, at_s, caplog
):
    """The models change while a word is said; the source is not touched."""
    expected = []

    async def drive(printer, *, reloads):
        await until(lambda: ("start", None) in printer.states())
        at = 2 * int(16_000 * at_s)
        await fifo.write(audio[:at])
        await asyncio.sleep(0.1)
        if reloads:
            write("[decision]\nthreshold = 0.45\n")
            tell(signal.SIGHUP)
            await fifo.write(audio[at : at + PIECE])  # comes while the new models are opened
            await until(lambda: "The configuration was read again." in caplog.messages)
            at += PIECE
        await fifo.write(audio[at:])
        await until(lambda: len(printer.of(Detection)) == 2)
        await asyncio.sleep(0.1)
        tell(signal.SIGTERM)

    caplog.set_level("INFO")
    for reloads in (False, True):
        config = write("[decision]\nthreshold = 0.5\n")
        _, printer = listen(
            config,
            driver=lambda printer, reloads=reloads: drive(printer, reloads=reloads),
            capture_command=capture_script(fifo.script()),
        )
        expected.append([end_s for *_, end_s in printer.detections()])
        assert ("stalled", "mic") not in printer.states()
    assert expected[0] == pytest.approx(expected[1], abs=0.05)
    assert len(fifo.pids()) == 2  # one for each daemon


def test_a_bad_configuration_is_refused_and_the_old_one_kept(
    write, fifo, capture_script, audio, caplog
):
    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        for text in ("[gate]\n", "[decision]\nthreshold = 2\n", "[source]\ninput = 3"):
            n_refused = printer.states().count(("error", None))
            write(text)
            tell(signal.SIGHUP)
            await until(lambda n=n_refused: printer.states().count(("error", None)) > n)
        await fifo.write(audio)
        await until(lambda: len(printer.of(Detection)) == 2)
        tell(signal.SIGTERM)

    listen(write(""), driver=drive, capture_command=capture_script(fifo.script()))
    assert len(fifo.pids()) == 1
    refused = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(refused) == 3
    assert "`decision.threshold` in" in refused[1]
    assert all(line.startswith("The new configuration is refused, and") for line in refused)


HOSTILE = sorted((Path(__file__).parents[2] / "data" / "hostile").glob("[!e]*.tflite"))


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_the_daemon_refuses_a_hostile_model_at_its_start(write, path):
    with pytest.raises(ModelError, match="Received: "):
        Daemon(write("", models=f"[model]\nname = '{path}'\n"))


def test_a_reload_with_hostile_models_stops_neither_audio_nor_sigterm(
    write, fifo, capture_script, audio
):
    """The audio is processed while they are checked; SIGTERM does not wait for a check."""

    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        for n, path in enumerate(HOSTILE, start=1):
            write("", models=f"[model]\nname = '{path}'\n")
            tell(signal.SIGHUP)
            await fifo.write(audio)
            await until(lambda n=n: len(printer.of(Detection)) == 2 * n)
            await until(lambda n=n: printer.states().count(("error", None)) == n)
        tell(signal.SIGHUP)
        await asyncio.sleep(0.05)
        started_s.append(time.monotonic())
        tell(signal.SIGTERM)

    started_s = []
    code, printer = listen(write(""), driver=drive, capture_command=capture_script(fifo.script()))
    assert code == 0
    assert time.monotonic() - started_s[0] < 3
    assert len(printer.of(Detection)) == 2 * len(HOSTILE)
    assert len(HOSTILE) == 3


def test_an_error_of_the_interpreter_ends_its_model_with_an_event_and_not_the_daemon(
    write, fifo, capture_script, audio, model, make_model, tmp_path, monkeypatch, caplog
):
    (tmp_path / "other.tflite").write_bytes(make_model(name="other"))
    models = f"[[models]]\nname = '{model}'\n[[models]]\nname = '{tmp_path}/other.tflite'\n"

    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        await fifo.write(audio)
        await until(lambda: ("error", "mic") in printer.states())
        await until(lambda: len(printer.of(Detection)) == 2)
        tell(signal.SIGTERM)

    class Failing:
        """An interpreter that fails as soon as a frame is loud."""

        def __init__(self, interpreter):
            self._interpreter, self._is_loud = interpreter, False

        def __getattr__(self, name):
            return getattr(self._interpreter, name)

        def set_tensor(self, index, values):
            self._is_loud = values.max() > 15
            self._interpreter.set_tensor(index, values)

        def invoke(self):
            if self._is_loud:
                raise RuntimeError("Node number 3 failed to invoke.")
            self._interpreter.invoke()

    def open_failing(path, **options):
        opened = open_model(path, **options)
        if opened.manifest.name == "other":
            opened._interpreter = Failing(opened._interpreter)
        return opened

    monkeypatch.setattr("kws.spotter.open_model", open_failing)
    code, printer = listen(
        write("", models=models), driver=drive, capture_command=capture_script(fifo.script())
    )
    assert code == 0
    assert {one.model for one in printer.of(Detection)} == {"loud"}
    (failure,) = [one for one in printer.of(StateChange) if one.event == "error"]
    assert failure.detail.startswith(
        "The model `other` has ended on mic; a reload opens it again. The model must be one that "
    )
    assert failure.detail in caplog.messages


def test_a_reload_opens_new_sources_ends_old_ones_and_leaves_the_others(
    write, capture_script, tmp_path, caplog
):
    script = (
        f'echo $settings | grep -o \'"name":"[a-z]*"\' | tail -1 | cut -d\'"\' -f4 > {tmp_path}/$$;'
        f"{OPENED} head -c 100 /dev/zero; exec sleep 60"
    )

    def sources(**devices):
        return "".join(
            f"[[sources]]\nname = '{name}'\ndevice = '{device}'\n"
            for name, device in devices.items()
        )

    def alive():
        found = {path.name: path.read_text().strip() for path in tmp_path.glob("[0-9]*")}
        return {pid: name for pid, name in found.items() if is_alive(pid)}

    seen = []

    async def drive(printer):
        await until(lambda: sorted(alive().values()) == ["one", "three", "two"])
        seen.append(alive())
        write(sources(one="a", two="z", four="d"))
        caplog.set_level("INFO")
        tell(signal.SIGHUP)
        await until(lambda: "The configuration was read again." in caplog.messages)
        await until(lambda: sorted(alive().values()) == ["four", "one", "two"])
        seen.append(alive())
        tell(signal.SIGTERM)

    listen(
        write(sources(one="a", two="b", three="c")),
        driver=drive,
        capture_command=capture_script(script),
    )
    before, after = seen
    assert {pid for pid, name in before.items() if pid in after} == {
        pid for pid, name in before.items() if name == "one"
    }
    assert alive() == {}


def test_a_reload_may_change_the_only_source(write, capture_script, tmp_path):
    """The old capture process has ended before the new one begins: it may hold the device."""

    async def drive(printer):
        await until(lambda: printer.states().count(("listening", "a")) == 1)
        write("[source]\ndevice = 'b'\n")
        tell(signal.SIGHUP)
        await until(lambda: ("listening", "b") in printer.states())
        tell(signal.SIGTERM)

    script = (
        f"[ -e {tmp_path}/pid ] && kill -0 $(cat {tmp_path}/pid) && touch {tmp_path}/both; "
        f"echo $$ > {tmp_path}/pid; trap '' TERM; {OPENED} head -c 100 /dev/zero; exec sleep 60"
    )
    code, _ = listen(
        write("[source]\ndevice = 'a'\n"), driver=drive, capture_command=capture_script(script)
    )
    assert code == 0
    assert not (tmp_path / "both").exists()


def test_after_a_reload_to_a_file_the_daemon_ends_with_it(write, recording):
    async def drive(printer):
        await until(lambda: ("listening", "command 1") in printer.states())
        write(f"[source]\ninput = '{recording}'\n")
        tell(signal.SIGHUP)

    code, printer = listen(write(NOISY), driver=drive)
    assert code == 0
    assert [end.detections for end in printer.of(End)] == [2]


def test_sigterm_in_the_middle_of_a_reload_leaves_no_capture_process(
    write, capture_script, tmp_path
):
    async def drive(printer):
        await until(lambda: ("listening", "a") in printer.states())
        write("[source]\ndevice = 'b'\n")
        tell(signal.SIGHUP)
        await asyncio.sleep(0.2)  # the old capture process has half a second to end
        tell(signal.SIGTERM)

    script = f"trap '' TERM; echo $$ >> {tmp_path}/pids; {OPENED} head -c 9 /dev/zero; sleep 60"
    listen(write("[source]\ndevice = 'a'\n"), driver=drive, capture_command=capture_script(script))
    pids = said(tmp_path / "pids").split()
    asyncio.run(until(lambda: not any(map(is_alive, pids))))


def test_new_hooks_run_after_a_reload_and_old_ones_end_in_their_time(
    write, fifo, capture_script, audio, tmp_path, caplog
):
    def hook(name):
        command = f"sleep 0.3; touch {tmp_path}/{name}"
        return f"[[hooks]]\nkeyword = 'stop'\nshell = true\ncommand = '{command}'\n"

    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        await fifo.write(audio[: 2 * 16_000])
        await until(lambda: len(printer.of(Detection)) == 1)
        write(hook("new"))
        caplog.set_level("INFO")
        tell(signal.SIGHUP)
        await until(lambda: "The configuration was read again." in caplog.messages)
        await fifo.write(audio[2 * 16_000 :])
        await until(lambda: (tmp_path / "old").exists() and (tmp_path / "new").exists())
        tell(signal.SIGTERM)

    listen(write(hook("old")), driver=drive, capture_command=capture_script(fifo.script()))


@pytest.mark.slow
def test_a_hook_of_before_a_reload_mutes_until_it_ends_and_mute_after_s_more(
    write, fifo, capture_script, audio, tmp_path, caplog
):
    script = f"until [ -e {tmp_path}/end ]; do sleep 0.02; done; touch {tmp_path}/ended"
    mute = "mute = true\nmute_after_s = 4.0\n"
    hook = f"[[hooks]]\nkeyword = 'stop'\nshell = true\ncommand = '{script}'\n{mute}"
    one, other = audio[: 2 * 16_000], "[[hooks]]\nkeyword = 'stop'\ncommand = 'true'\n"

    async def reload(text):
        n = caplog.messages.count("The configuration was read again.")
        write(text)
        tell(signal.SIGHUP)
        await until(lambda: caplog.messages.count("The configuration was read again.") > n)

    async def passed_over(printer):
        await fifo.write(one)
        await asyncio.sleep(0.3)
        assert len(printer.of(Detection)) == 1

    async def drive(printer):
        caplog.set_level("INFO")
        await until(lambda: ("start", None) in printer.states())
        await fifo.write(one)
        await until(lambda: len(printer.of(Detection)) == 1)
        await reload(other)
        await passed_over(printer)
        (tmp_path / "end").touch()
        await until((tmp_path / "ended").exists)
        await reload(other + "on = ['start']\n")
        await passed_over(printer)
        await asyncio.sleep(4.0)
        await fifo.write(one)
        await until(lambda: len(printer.of(Detection)) == 2)
        tell(signal.SIGTERM)

    listen(write(hook), driver=drive, capture_command=capture_script(fifo.script()))


def test_a_hook_that_hangs_and_a_sink_that_hangs_delay_no_audio(
    write, fifo, capture_script, audio, tmp_path
):
    config = write("[[hooks]]\nkeyword = '*'\ncommand = 'sleep 60'\nmax_running = 1\n")
    heard = []

    async def drive(printer):
        for _ in range(5):
            n_before = len(heard)
            await fifo.write(audio)
            await until(lambda n=n_before: len(heard) >= n + 2)
        tell(signal.SIGTERM)

    original = Daemon._deliver

    def deliver(self, event):
        if isinstance(event, Detection):
            heard.append(event)
        original(self, event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Daemon, "_deliver", deliver)
        listen(
            config,
            driver=drive,
            printer=Printer(hangs=True),
            capture_command=capture_script(fifo.script()),
        )
    assert len(heard) >= 10


def test_a_source_that_fails_leaves_the_other_alone(write, capture_script, recording, tmp_path):
    script = (
        f"case $settings in *bad*) exit 1;; esac; {OPENED} tail -c +45 {recording}; exec sleep 60"
    )

    async def drive(printer):
        await until(lambda: len(printer.of(Detection)) == 2)
        await until(lambda: ("stalled", "bad") in printer.states())
        tell(signal.SIGTERM)

    config = write("[[sources]]\nname = 'bad'\n[[sources]]\nname = 'good'\n")
    _, printer = listen(config, driver=drive, capture_command=capture_script(script))
    assert {source for source, *_ in printer.detections()} == {"good"}


def test_systemd_is_told_of_everything(write, fifo, capture_script, audio, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        variables = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "60000",
            "WATCHDOG_PID": str(os.getpid()),
        }
        heard = []

        def told(what):
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard.append(manager.recv(4096).decode().partition("\n")[0])
            return any(line.startswith(what) for line in heard)

        async def drive(printer):
            await until(lambda: told("READY=1"))
            await fifo.write(audio)
            await until(lambda: told("STATUS=2 keywords. Listening since 2"))
            await until(lambda: heard.count("WATCHDOG=1") > 2 or told("never"))
            tell(signal.SIGHUP)
            await until(lambda: told("RELOADING=1"))
            await until(lambda: heard.count("READY=1") == 2 or told("never"))
            tell(signal.SIGTERM)

        listen(
            write(""),
            driver=drive,
            capture_command=capture_script(fifo.script()),
            notifier=SystemdNotifier(variables),
        )
        told("never")
    assert heard.index("READY=1") < heard.index("RELOADING=1") < heard.index("STOPPING=1")


@pytest.mark.slow
def test_the_process_ends_though_nobody_reads_what_it_prints_and_logs(write, tmp_path, recording):
    """Pipes that are full hold locks which Python would wait for at its end."""
    loud = tmp_path / "loud.wav"
    with wave.open(str(recording)) as one, wave.open(str(loud), "wb") as many:
        many.setparams(one.getparams())
        many.writeframes(200 * one.readframes(one.getnframes()))
    config = write(
        f"[[sources]]\ninput = '{loud}'\n[[sources]]\nname = 'gone'\ndevice = 'none:none'\n"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-m", "kws", "daemon", "--config", config, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for pipe in (daemon.stdout, daemon.stderr):  # one page, so that it is soon full
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    asyncio.run(until(lambda: min(map(n_waiting, (daemon.stdout, daemon.stderr))) > 3_500))
    time.sleep(0.5)
    asked_s = time.monotonic()
    daemon.terminate()
    try:
        assert daemon.wait(30) == 0
        assert time.monotonic() - asked_s < 4
    finally:
        daemon.kill()
        daemon.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("options", "is_json"), [([], True), (["--log-format", "text"], False)])
def test_a_reload_changes_the_format_of_the_log_unless_an_option_sets_it(write, options, is_json):
    source = "[source]\ncommand = ['sh', '-c', 'head -c 3200 /dev/zero; sleep 99']\nstall_s = 99\n"
    config = write(source)
    command = [sys.executable, "-m", "kws", "daemon", "--config", config, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            before = next(line for line in daemon.stderr if "listening to" in line)
            write(source + "[daemon]\nlog_format = 'json'\n")
            daemon.send_signal(signal.SIGHUP)
            after = next(line for line in daemon.stderr if "was read again" in line)
        finally:
            daemon.terminate()
            daemon.stderr.read()
    text = "INFO: The configuration was read again.\n"
    assert before.startswith("INFO: ")
    assert json.loads(after)["message"] == text[6:-1] if is_json else after == text


def n_waiting(pipe):
    """Return how many bytes of a pipe nobody has read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


async def ask(path):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b'{"request": "status"}\n')
    answer = msgspec.json.decode(await reader.readline(), type=Snapshot)
    writer.close()
    await writer.wait_closed()
    return answer


def test_its_state_can_be_asked_for(write, capture_script, recording, tmp_path):
    config = write(
        f"[[sources]]\nname = 'good'\n[[sources]]\nname = 'bad'\n"
        f"[[hooks]]\ncommand = 'true'\n[daemon]\nsocket = '{tmp_path}/mine.sock'\n"
    )
    script = (
        f"case $settings in *bad*) exit 1;; esac; {OPENED} tail -c +45 {recording}; exec sleep 60"
    )
    answers = []

    async def drive(printer):
        await until(lambda: len(printer.of(Detection)) == 2)
        await until(lambda: ("stalled", "bad") in printer.states())
        while not answers or answers[0].sources[0].audio_s < 3.0 or answers[0].sources[0].waiting_s:
            answers[:] = [await ask(tmp_path / "mine.sock")]
        tell(signal.SIGTERM)

    listen(config, driver=drive, capture_command=capture_script(script))
    (answer,) = answers
    good, bad = answer.sources
    assert (good.name, good.state, good.audio_s, good.description) == (
        "good",
        "listening",
        3.0,
        "a fake",
    )
    assert (good.level_dbfs, good.gate_open) == (-100.0, True)  # it has fallen silent
    assert (bad.state, bad.level_dbfs, bad.gate_open) == ("stalled", None, False)
    assert bad.last_error.startswith("The capture process ended with exit status 1.")
    assert answer.models == ["loud"]
    assert [(one.keyword, one.source, one.n) for one in answer.detections] == [("stop", "good", 2)]
    assert answer.hooks["started"] + answer.hooks["dropped"] <= 2
    assert [line.level for line in answer.last_errors] == ["warning"]
    assert not (tmp_path / "mine.sock").exists()


def test_its_events_can_be_followed(write, fifo, capture_script, audio, tmp_path):
    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        reader, writer = await asyncio.open_unix_connection(tmp_path / "kws.sock")
        writer.write(b'{"request": "events"}\n')
        await asyncio.sleep(0.2)
        await fifo.write(audio)
        await until(lambda: len(printer.of(Detection)) == 2)
        tell(signal.SIGTERM)
        followed.extend([json.loads(line)["event"] async for line in reader])
        writer.close()

    followed = []
    listen(write(""), driver=drive, capture_command=capture_script(fifo.script()))
    assert (followed[0], followed[-1]) == ("listening", "stop")
    assert followed.count("detection") == followed.count("peak") == 2


def test_a_socket_that_cannot_be_had_is_an_error_only_where_it_is_asked_for(
    write, recording, tmp_path, monkeypatch, caplog
):
    file = f"[source]\ninput = '{recording}'\n"
    with pytest.raises(ConfigError, match="The daemon's socket cannot be created"):
        listen(write(f"{file}[daemon]\nsocket = '{recording}/kws.sock'\n"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(recording))
    assert listen(write(file))[0] == 0
    warned = "`kws status` will not find this daemon. The daemon's socket cannot be created"
    assert any(message.startswith(warned) for message in caplog.messages)


def test_what_is_heard_is_recorded_and_new_settings_hold_after_a_reload(
    write, fifo, capture_script, audio, tmp_path, caplog
):
    def clips(name):
        return sorted((tmp_path / name).glob("*.wav"))

    async def drive(printer):
        await until(lambda: ("start", None) in printer.states())
        await fifo.write(audio)
        await until(lambda: len(clips("one")) == 2)
        write(f"[recording]\nfolder = '{tmp_path}/two'\n")
        caplog.set_level("INFO")
        tell(signal.SIGHUP)
        await until(lambda: "The configuration was read again." in caplog.messages)
        await fifo.write(audio)
        await until(lambda: len(clips("two")) == 2)
        tell(signal.SIGTERM)

    config = write(f"[recording]\nfolder = '{tmp_path}/one'\n")
    listen(config, driver=drive, capture_command=capture_script(fifo.script()))
    assert (len(clips("one")), len(clips("two"))) == (2, 2)
    with wave.open(str(clips("one")[0])) as clip:
        assert clip.getnframes() > 8_000


def test_an_error_of_its_own_ends_the_daemon(write, capture_script, monkeypatch):
    async def run(self):
        raise ZeroDivisionError

    monkeypatch.setattr(SourceSupervisor, "run", run)
    with pytest.raises(ZeroDivisionError):
        listen(write(""), capture_command=capture_script("exec sleep 60"))


NOISY = "[source]\ncommand = ['sh', '-c', 'head -c 3200 /dev/zero; exec sleep 60']\n"


def start_daemon(config, prelude=""):
    """Start `kws daemon` in a process of its own, after some lines of Python."""
    run = f"from kws.cli import main\nmain(['daemon', '--config', {str(config)!r}])"
    code = f"import sys\n{prelude}\n{run}"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_sighup_while_the_models_are_opened_does_not_end_the_daemon_but_reloads(write, tmp_path):
    (tmp_path / "other").mkdir()
    prelude = (
        "import os, signal\n"
        "from kws.daemon.loaded_config import LoadedConfig\n"
        "usual = LoadedConfig.read\n"
        "def read(*arguments, **options):\n"
        "    loaded = usual(*arguments, **options)\n"
        "    if 'old' not in options:\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return loaded\n"
        "LoadedConfig.read = read\n"
    )
    config = write(NOISY)
    with start_daemon(config, prelude) as process:
        for line in process.stderr:
            if "The configuration was read again." in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_sighup_before_the_configuration_is_read_does_not_end_the_daemon(write):
    prelude = (
        "import os, signal\n"
        "from kws import config\n"
        "usual = config.load_config\n"
        "def load_config(path):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return usual(path)\n"
        "config.load_config = load_config\n"
    )
    with start_daemon(write(NOISY), prelude) as process:
        for line in process.stderr:
            if "listening" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_sigterm_ends_a_running_check(write, make_model, tmp_path):
    pid = tmp_path / "pid"
    (tmp_path / "untrusted.tflite").write_bytes(make_model())
    (tmp_path / "python").write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    config = write("", models=f"[model]\nname = '{tmp_path}/untrusted.tflite'\n")
    prelude = f"sys.executable = '{tmp_path}/python'"
    with start_daemon(config, prelude) as process:
        asyncio.run(until(lambda: said(pid)))
        started_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert time.monotonic() - started_s < 3
    assert not is_alive(pid.read_text().strip())
