import asyncio
import contextlib
import logging
import os
import re
import socket

import numpy as np
import pytest

from kws.config import SourceSettings
from kws.daemon import source_supervisor
from kws.daemon.capture_process import CAPTURE_COMMAND, CaptureProcess
from kws.daemon.source_supervisor import backoff_s
from kws.sources.silence import CHECK_MUTED

from .conftest import OPENED, census, is_alive, running, said, until

SECOND = 32_000


def kinds(supervisor):
    return [change.event for change in supervisor.changes]


def audio_of(blocks):
    return b"".join(block.audio for block in blocks)


def test_the_pause_doubles_from_half_a_second_to_thirty():
    for n_failures in range(12):
        middle_s = min(37.0, 0.5 * 2**n_failures)
        drawn = [backoff_s(n_failures) for _ in range(200)]
        assert all(min(30.0, max(0.5, 0.79 * middle_s)) <= pause_s <= 30.0 for pause_s in drawn)
        assert all(pause_s <= 1.21 * middle_s for pause_s in drawn)
        assert len(set(drawn)) > 1 or min(drawn) == 30.0
    assert backoff_s(100_000) <= 30.0


def test_what_the_capture_process_gives_is_heard(capture_script, make_supervisor, tmp_path):
    ramp = np.arange(20_000, dtype="<i2").tobytes()
    (tmp_path / "audio").write_bytes(ramp)
    supervisor = make_supervisor(
        capture_script(f"{OPENED} cat {tmp_path}/audio; exec sleep 60"), name="desk"
    )
    blocks = running(supervisor, lambda: supervisor.backlog.n_received == 20_000)
    assert audio_of(blocks) == ramp
    assert not any(block.is_after_gap for block in blocks)
    assert (supervisor.state, supervisor.name, supervisor.n_reopened) == ("listening", "a fake", 0)
    (told,) = supervisor.changes
    assert (told.event, told.source, told.detail) == ("listening", "desk", "a fake")
    since = r"Listening since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{since}: desk \(a fake\)", supervisor.status())
    supervisor.name = supervisor.label
    assert re.fullmatch(rf"{since}: desk", supervisor.status())
    assert told.time.endswith("Z")


def test_the_capture_process_is_asked_to_end_before_it_is_killed(
    capture_script, make_supervisor, tmp_path
):
    script = f"trap 'touch {tmp_path}/asked; exit' TERM; {OPENED} head -c 100 /dev/zero"
    supervisor = make_supervisor(capture_script(f"{script}; sleep 60 & wait"))
    running(supervisor, lambda: supervisor.backlog.n_received)
    assert (tmp_path / "asked").exists()


def test_the_capture_process_is_given_its_settings_as_json(make_supervisor, tmp_path):
    script = f"read settings; echo $settings > {tmp_path}/settings; {OPENED} sleep 60"
    supervisor = make_supervisor(["/bin/sh", "-c", script], device="USB")
    running(supervisor, lambda: said(tmp_path / "settings"))
    assert '"device":"USB"' in (tmp_path / "settings").read_text()


def test_a_source_that_stalls_is_killed_and_heard_again(
    capture_script, make_supervisor, once, tmp_path
):
    pid = tmp_path / "pid"
    script = once(
        f"trap '' TERM; {OPENED} echo $$ > {pid}; head -c 100 /dev/zero; sleep 60 & wait; wait",
        f"{OPENED} head -c 200 /dev/zero; sleep 60",
    )
    supervisor = make_supervisor(capture_script(script))
    blocks = running(supervisor, lambda: supervisor.n_reopened)
    assert kinds(supervisor) == ["listening", "stalled", "recovered"]
    assert supervisor.changes[1].detail == "No audio was received for 1 s."
    assert not is_alive(pid.read_text().strip())
    assert [(len(p.audio), p.is_after_gap) for p in blocks] == [
        (100, False),
        (0, True),
        (200, False),
    ]
    assert [block.start_sample for block in blocks] == [0, 50, 50]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_port_that_nobody_sends_to_stays_open_and_hears_the_next_at_once(
    make_supervisor, free_port, caplog, kind
):
    supervisor = make_supervisor(
        CAPTURE_COMMAND, input=f"{kind}://127.0.0.1:{free_port}", pause_s=60.0
    )
    pids = set()

    async def states(*expected):
        await until(lambda: kinds(supervisor) == list(expected))
        pids.add(supervisor._capture.pid)

    async def run():
        task = asyncio.create_task(supervisor.run())
        await states("stalled")
        assert supervisor.last_error == "No audio was received for 1 s."
        for n in (1, 2):
            await asyncio.sleep(0.6)  # no second stall is told
            with sender(kind, free_port) as one:
                one.send(bytes(2_560))
                await states(*n * ["stalled", "recovered"])
                await states(*n * ["stalled", "recovered"], "stalled")
        task.cancel()
        await asyncio.wait([task])

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert len(pids) == 1
    blocks = iter(supervisor.take, None)
    assert [(len(one.audio), one.is_after_gap) for one in blocks] == 2 * [(2_560, False), (0, True)]
    line = f"{supervisor.label}: No audio was received for 1 s. Its port stays open for a sender."
    assert caplog.messages == 3 * [line]


def test_a_port_that_cannot_be_had_is_tried_again_until_it_can(make_supervisor, free_port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", free_port))
        supervisor = make_supervisor(CAPTURE_COMMAND, input=f"udp://127.0.0.1:{free_port}")
        running(supervisor, lambda: "Address already in use" in (supervisor.last_error or ""))
    running(supervisor, lambda: supervisor.last_error == "No audio was received for 1 s.")
    assert kinds(supervisor) == ["stalled"]


def sender(kind, port):
    one = socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    one.connect(("127.0.0.1", port))
    return one


def test_a_microphone_that_gives_zeros_is_told_of_once_and_again_when_sound_comes_back(
    capture_script, make_supervisor, caplog
):
    zeros, sound = "head -c 64000 /dev/zero", "head -c 3200 /dev/urandom"
    script = f"{OPENED} {sound}; {zeros}; {zeros}; sleep 0.1; {sound}; exec sleep 60"
    supervisor = make_supervisor(capture_script(script), silent_s=2.0, name="desk", stall_s=30.0)
    states = []
    supervisor._on_change = lambda change: (
        supervisor.changes.append(change),
        states.append(supervisor.state),
    )
    with caplog.at_level(logging.WARNING):
        running(supervisor, lambda: len(supervisor.changes) == 3)
    assert kinds(supervisor) == ["listening", "silent", "recovered"]
    assert states == ["listening", "silent", "listening"]
    assert supervisor.changes[1].detail == f"Only digital silence for 2 s. {CHECK_MUTED}."
    assert supervisor.changes[2].detail == "Sound again."
    assert caplog.messages == [f"desk: Only digital silence for 2 s. {CHECK_MUTED}."]
    assert supervisor.n_reopened == 0


@pytest.mark.parametrize("settings", [{"silent_s": 0.0}, {"input": "a file.wav"}])
def test_digital_silence_of_a_file_or_without_a_limit_is_nothing(
    capture_script, make_supervisor, settings
):
    script = f"{OPENED} head -c 640000 /dev/zero; exec sleep 60"
    supervisor = make_supervisor(
        capture_script(script), **{"silent_s": 1.0, "stall_s": 30.0} | settings
    )
    running(supervisor, lambda: supervisor.backlog.n_received > 100_000)
    assert kinds(supervisor) == ["listening"]


def test_a_source_that_stalls_while_it_is_silent_has_a_gap(capture_script, make_supervisor, once):
    script = once(
        f"{OPENED} head -c 64000 /dev/zero; exec sleep 60",
        f"{OPENED} head -c 3200 /dev/urandom; exec sleep 60",
    )
    supervisor = make_supervisor(capture_script(script), silent_s=1.0)
    blocks = running(supervisor, lambda: supervisor.n_reopened)
    assert kinds(supervisor) == ["listening", "silent", "stalled", "recovered"]
    assert [block.is_after_gap for block in blocks].count(True) == 1


def test_an_error_of_the_source_is_told_once_in_its_own_words(
    capture_script, make_supervisor, caplog
):
    failed = """echo '{"report": "failed", "message": "It is busy."}' >&2; exit 3"""
    supervisor = make_supervisor(capture_script(failed))
    attempts = []
    supervisor._pause_s = lambda n_failures: attempts.append(n_failures) or 0.0
    with caplog.at_level(logging.WARNING):
        running(supervisor, lambda: len(attempts) > 4)
    assert kinds(supervisor) == ["stalled"]
    assert (supervisor.state, supervisor.last_error) == ("stalled", "It is busy.")
    assert attempts[:5] == [0, 1, 2, 3, 4]
    assert [record.message for record in caplog.records] == [
        "mic: It is busy. Next attempt in 0.0 s."
    ]


def test_an_end_that_comes_while_a_capture_process_is_ended_leaves_no_process(
    capture_script, make_supervisor
):
    supervisor = make_supervisor(
        capture_script("trap '' TERM; exec >&-; sleep 60 & wait; sleep 60")
    )
    before = census()

    async def run():
        task = asyncio.create_task(supervisor.run())
        await until(lambda: supervisor._capture is not None)
        await until(lambda: supervisor._capture is None)  # for half a second: it ignores SIGTERM
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    assert census() == before


def test_a_capture_process_that_ends_just_before_it_is_ended_is_no_trouble():
    """Its end of file has not been read yet."""
    before = census()

    async def run():
        silent = CaptureProcess(SourceSettings(), on_audio=lambda audio: None, command=["true"])
        os.waitid(os.P_PID, silent.pid, os.WEXITED | os.WNOWAIT)
        return await silent.stop()

    assert asyncio.run(run()) is None
    assert census() == before


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo one >&2; echo two >&2; exit 7", "exit status 7. stderr: one; two."),
        ("kill -9 $$", "signal 9. stderr: none."),
    ],
)
def test_a_capture_process_that_crashes_leaves_its_standard_error(
    capture_script, make_supervisor, script, reason
):
    supervisor = make_supervisor(capture_script(script))
    running(supervisor, lambda: supervisor.changes)
    assert supervisor.last_error == f"The capture process ended with {reason}"


def test_a_microphone_that_ends_in_good_order_is_opened_again(capture_script, make_supervisor):
    supervisor = make_supervisor(capture_script(f"{OPENED} head -c 100 /dev/zero"))
    running(supervisor, lambda: supervisor.n_reopened > 1)
    assert kinds(supervisor)[:5] == ["listening", "stalled", "recovered", "stalled", "recovered"]
    assert supervisor.changes[1].detail == "The source ended."


def test_a_capture_process_that_cannot_be_started_is_tried_again(make_supervisor, tmp_path):
    supervisor = make_supervisor([str(tmp_path / "none")])
    running(supervisor, lambda: supervisor.changes)
    assert supervisor.last_error.startswith("The capture process cannot be started: [Errno 2]")


def test_the_pause_is_short_again_after_audio_has_flowed(capture_script, make_supervisor, tmp_path):
    pauses = []
    supervisor = make_supervisor(capture_script(f"{OPENED} cat {tmp_path}/audio"), backlog_s=60)
    supervisor._pause_s = lambda n_failures: pauses.append(n_failures) or 0.0
    (tmp_path / "audio").write_bytes(bytes(100))
    running(supervisor, lambda: len(pauses) > 2)
    assert pauses[:3] == [0, 1, 2]
    (tmp_path / "audio").write_bytes(bytes(11 * SECOND))
    pauses.clear()
    running(supervisor, lambda: len(pauses) > 2)
    assert pauses[:3] == [0, 0, 0]


def test_a_device_that_is_plugged_in_ends_the_pause(
    capture_script, make_supervisor, tmp_path, monkeypatch
):
    monkeypatch.setattr(source_supervisor, "DEVICES", tmp_path / "snd")
    supervisor = make_supervisor(
        capture_script(f"[ -e {tmp_path}/snd ] || exit 1; {OPENED} cat /dev/urandom")
    )
    supervisor._pause_s = lambda n_failures: 600.0

    def plugged_in():
        if supervisor.state == "stalled" and not (tmp_path / "snd").exists():
            (tmp_path / "snd").mkdir()
        return supervisor.state == "listening"

    running(supervisor, plugged_in)
    assert kinds(supervisor) == ["stalled", "recovered"]


@pytest.mark.parametrize(
    "live",
    [{}, {"command": ["cat"], "input": "a.wav"}, {"input": "udp://127.0.0.1:1"}, {"input": "mic"}],
)
def test_all_but_files_live_for_ever(make_supervisor, live):
    assert not make_supervisor(["true"], **live).is_file
    assert make_supervisor(["true"], input="a.wav").is_file


def test_a_file_ends_and_is_not_opened_again(capture_script, make_supervisor):
    supervisor = make_supervisor(capture_script(f"{OPENED} head -c 100 /dev/zero"), input="a.wav")
    blocks = running(supervisor, lambda: False)
    assert (supervisor.state, supervisor.last_error, supervisor.has_ended) == ("ended", None, True)
    assert kinds(supervisor) == ["listening"]
    assert len(audio_of(blocks)) == 100


def test_what_is_wrong_with_a_file_is_told_after_its_audio(capture_script, make_supervisor):
    failed = """echo '{"report": "failed", "message": "It is cut."}' >&2; exit 3"""
    supervisor = make_supervisor(
        capture_script(f"{OPENED} head -c 100 /dev/zero; {failed}"), input="a.wav"
    )
    assert len(audio_of(running(supervisor, lambda: False))) == 100
    assert kinds(supervisor) == ["listening", "error"]
    assert (supervisor.state, supervisor.last_error) == ("ended", "It is cut.")


def test_a_file_waits_for_a_busy_machine_and_loses_nothing(capture_script, make_supervisor):
    audio = f"head -c {60 * SECOND} /dev/zero"
    supervisor = make_supervisor(capture_script(f"{OPENED} {audio}"), input="a.wav", backlog_s=1.0)

    async def run():
        task = asyncio.create_task(supervisor.run())
        await until(lambda: supervisor.backlog.is_full)
        await asyncio.sleep(1.5)  # longer than the limit of a stall
        n_heard, most_s = 0, 0.0
        while not supervisor.has_ended:
            most_s = max(most_s, supervisor.backlog.waiting_s)
            block = supervisor.take()
            n_heard += len(block.audio) if block else 0
            await asyncio.sleep(0)
        await task
        return n_heard, most_s

    n_heard, most_s = asyncio.run(run())
    assert n_heard == 60 * SECOND
    assert most_s < 2.0
    assert (supervisor.backlog.n_dropped, supervisor.last_error) == (0, None)


def test_when_nobody_takes_it_the_oldest_audio_goes(capture_script, make_supervisor, log, tmp_path):
    ramp = (np.arange(60 * 16_000) % 32_768).astype("<i2").tobytes()
    (tmp_path / "audio").write_bytes(ramp)
    supervisor = make_supervisor(
        capture_script(f"{OPENED} cat {tmp_path}/audio; exec sleep 60"), backlog_s=2.0
    )
    blocks = running(supervisor, lambda: supervisor.backlog.n_received == 60 * 16_000)
    kept = audio_of(blocks)
    assert 0.4 * SECOND < len(kept) <= 2.0 * SECOND
    assert kept == ramp[-len(kept) :]
    assert blocks[0].is_after_gap
    assert blocks[0].start_sample == supervisor.backlog.n_dropped == (len(ramp) - len(kept)) // 2
    assert 1 <= len(log.messages) <= 10  # not one for each block
    for line in log.messages:
        assert line.startswith("mic: the oldest audio was dropped, as the machine is too busy: ")


def test_audio_that_was_lost_before_it_came_is_counted_and_logged(
    capture_script, make_supervisor, once, log
):
    def lost(*counts):
        reports = (f"""echo '{{"report": "lost", "n_chunks": {n}}}' >&2;""" for n in counts)
        return f"{OPENED} head -c 100 /dev/zero; {' '.join(reports)}"

    script = once(f"{lost(1, 3)} exit", f"{lost(2, 4)} exec sleep 60")
    supervisor = make_supervisor(capture_script(script))
    running(supervisor, lambda: supervisor.n_overruns == 7)
    assert [line for line in log.messages if "lost" in line] == [
        f"mic: audio was lost before the daemon received it; the machine may be too busy. "
        f"Overruns so far: {n}."
        for n in (1, 3, 5, 7)
    ]


def test_a_source_that_defies_its_end_is_killed_with_all_it_started(
    capture_script, make_supervisor, tmp_path
):
    script = f"trap '' TERM; {OPENED} sleep 61 & echo $! $$ > {tmp_path}/pids; cat /dev/zero"
    supervisor = make_supervisor(capture_script(script))
    running(supervisor, lambda: supervisor.backlog.n_received)
    asyncio.run(until(lambda: not any(map(is_alive, (tmp_path / "pids").read_text().split()))))


@pytest.mark.slow
def test_two_hundred_reopenings_leave_nothing_behind(capture_script, make_supervisor, caplog):
    caplog.set_level(logging.CRITICAL)
    supervisor = make_supervisor(
        capture_script(f"{OPENED} head -c 100 /dev/zero; exit 1"), pause_s=0.0
    )
    before, meanwhile = census(), set()

    def reopened():
        meanwhile.add(census()[:2])
        return supervisor.n_reopened >= 200

    running(supervisor, reopened, limit_s=240)
    assert census() == before
    loop, pipes = 3, 6  # descriptors
    assert max(meanwhile) <= (before[0] + loop + pipes, before[1])


def test_a_reason_whose_last_words_vary_is_logged_once(capture_script, make_supervisor, log):
    supervisor = make_supervisor(capture_script("echo failed at $$ >&2; exit 3"))
    reasons = set()
    running(supervisor, lambda: reasons.add(supervisor.last_error) or len(reasons) > 3)
    (message,) = log.messages
    assert "The capture process ended with exit status 3. stderr: failed at " in message


def test_what_a_capture_process_says_is_escaped_and_cut(capture_script, make_supervisor, log):
    name = r'{"report": "opened", "name": "\\u001b[2J' + 300 * "x" + '"}'
    script = f"echo '{name}' >&2; head -c 100 /dev/zero; printf '\\033]0;a\\007\\nb\\n' >&2; exit 1"
    supervisor = make_supervisor(capture_script(script))
    running(supervisor, lambda: supervisor.last_error)
    assert supervisor.name == (r"\x1b[2J" + 300 * "x")[:200]
    assert supervisor.last_error.endswith(r" stderr: \x1b]0;a\x07; b.")


def test_an_error_that_a_capture_process_reports_is_escaped(capture_script, make_supervisor):
    report = r'{"report": "failed", "message": "\\u001b[2J\\u009b' + 3000 * "x" + '"}'
    supervisor = make_supervisor(capture_script(f"echo '{report}' >&2; exit 3"))
    running(supervisor, lambda: supervisor.last_error)
    assert supervisor.last_error == (r"\x1b[2J\x9b" + 3000 * "x")[:2000]


def test_what_a_source_warns_of_reaches_the_log_of_the_daemon(
    make_supervisor, free_port, log, caplog
):
    """A second sender on a port is refused in the capture process."""
    supervisor = make_supervisor(CAPTURE_COMMAND, input=f"udp://127.0.0.1:{free_port}", name="hall")
    with (
        caplog.at_level(logging.INFO),
        sender("udp", free_port) as one,
        sender("udp", free_port) as two,
    ):

        def is_known():
            with contextlib.suppress(ConnectionRefusedError):
                one.send(bytes(320))
                two.send(bytes(320))
            return any("refused" in message for message in caplog.messages)

        running(supervisor, is_known)
        ports = [socket_.getsockname()[1] for socket_ in (one, two)]
    (record,) = [record for record in caplog.records if "refused" in record.message]
    assert record.levelname == "WARNING"
    first = next(one for one in caplog.messages if "accepted" in one).rpartition(":")[2]
    other = ports[1 - ports.index(int(first.rstrip(".")))]
    assert record.message == (
        f"hall: udp://127.0.0.1:{free_port}: refused 127.0.0.1:{other}, as another sender is "
        f"active."
    )
