import asyncio
import logging
import os
import socket

import numpy as np
import pytest

from kws.config import SourceSettings
from kws.daemon import source_supervisor as ears
from kws.daemon.capture_process import CAPTURE, Recorder
from kws.daemon.source_supervisor import back_off_s

from .conftest import OPENED, census, is_alive, running, said, until

SECOND = 32_000


def kinds(ear):
    return [change.event for change in ear.told]


def audio_of(pieces):
    return b"".join(piece.audio for piece in pieces)


def test_the_pause_doubles_from_half_a_second_to_thirty():
    for n_failures in range(12):
        middle_s = min(37.0, 0.5 * 2**n_failures)
        drawn = [back_off_s(n_failures) for _ in range(200)]
        assert all(min(30.0, max(0.5, 0.79 * middle_s)) <= pause_s <= 30.0 for pause_s in drawn)
        assert all(pause_s <= 1.21 * middle_s for pause_s in drawn)
        assert len(set(drawn)) > 1 or min(drawn) == 30.0
    assert back_off_s(100_000) <= 30.0


def test_what_the_recorder_gives_is_heard(recorder, make_ear, tmp_path):
    ramp = np.arange(20_000, dtype="<i2").tobytes()
    (tmp_path / "audio").write_bytes(ramp)
    ear = make_ear(recorder(f"{OPENED} cat {tmp_path}/audio; exec sleep 60"), name="desk")
    pieces = running(ear, lambda: ear.backlog.n_received == 20_000)
    assert audio_of(pieces) == ramp
    assert not any(piece.is_after_gap for piece in pieces)
    assert (ear.state, ear.name, ear.n_reopened) == ("listening", "a fake", 0)
    (told,) = ear.told
    assert (told.event, told.source, told.detail) == ("listening", "desk", "a fake")
    assert told.time.endswith("Z")


def test_the_recorder_is_given_its_settings_as_json(make_ear, tmp_path):
    script = f"read settings; echo $settings > {tmp_path}/settings; {OPENED} sleep 60"
    ear = make_ear(["/bin/sh", "-c", script], device="USB")
    running(ear, lambda: said(tmp_path / "settings"))
    assert '"device":"USB"' in (tmp_path / "settings").read_text()


def test_a_source_that_stalls_is_killed_and_heard_again(recorder, make_ear, once, tmp_path):
    pid = tmp_path / "pid"
    script = once(
        f"trap '' TERM; {OPENED} echo $$ > {pid}; head -c 100 /dev/zero; sleep 60 & wait; wait",
        f"{OPENED} head -c 200 /dev/zero; sleep 60",
    )
    ear = make_ear(recorder(script))
    pieces = running(ear, lambda: ear.n_reopened)
    assert kinds(ear) == ["listening", "stalled", "recovered"]
    assert ear.told[1].detail == "No audio came for 1 s."
    assert not is_alive(pid.read_text().strip())
    assert [(len(p.audio), p.is_after_gap) for p in pieces] == [
        (100, False),
        (0, True),
        (200, False),
    ]
    assert [piece.start_sample for piece in pieces] == [0, 50, 50]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_port_that_nobody_sends_to_stays_open_and_hears_the_next_at_once(
    make_ear, free_port, caplog, kind
):
    ear = make_ear(CAPTURE, input=f"{kind}://127.0.0.1:{free_port}", pause_s=60.0)
    pids = set()

    async def states(*expected):
        await until(lambda: kinds(ear) == list(expected))
        pids.add(ear._recorder.pid)

    async def run():
        task = asyncio.create_task(ear.run())
        await states("stalled")
        assert ear.last_error == "No audio came for 1 s."
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
    pieces = iter(ear.take, None)
    assert [(len(one.audio), one.is_after_gap) for one in pieces] == 2 * [(2_560, False), (0, True)]
    line = f"{ear.label}: No audio came for 1 s. Its port stays open for a sender."
    assert caplog.messages == 3 * [line]


def test_a_port_that_cannot_be_had_is_tried_again_until_it_can(make_ear, free_port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", free_port))
        ear = make_ear(CAPTURE, input=f"udp://127.0.0.1:{free_port}")
        running(ear, lambda: "Address already in use" in (ear.last_error or ""))
    running(ear, lambda: ear.last_error == "No audio came for 1 s.")
    assert kinds(ear) == ["stalled"]


def sender(kind, port):
    one = socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    one.connect(("127.0.0.1", port))
    return one


def test_an_error_of_the_source_is_told_once_in_its_own_words(recorder, make_ear, caplog):
    failed = """echo '{"report": "failed", "message": "It is busy."}' >&2; exit 3"""
    ear = make_ear(recorder(failed))
    attempts = []
    ear._pause_s = lambda n_failures: attempts.append(n_failures) or 0.0
    with caplog.at_level(logging.WARNING):
        running(ear, lambda: len(attempts) > 4)
    assert kinds(ear) == ["stalled"]
    assert (ear.state, ear.last_error) == ("stalled", "It is busy.")
    assert attempts[:5] == [0, 1, 2, 3, 4]
    assert [record.message for record in caplog.records] == [
        "mic: It is busy. Next attempt in 0.0 s."
    ]


def test_an_end_that_comes_while_a_recorder_is_ended_leaves_no_process(recorder, make_ear):
    ear = make_ear(recorder("trap '' TERM; exec >&-; sleep 60 & wait; sleep 60"))
    before = census()

    async def run():
        task = asyncio.create_task(ear.run())
        await until(lambda: ear._recorder is not None)
        await until(lambda: ear._recorder is None)  # for half a second: it ignores SIGTERM
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    assert census() == before


def test_a_recorder_that_ends_just_before_it_is_ended_is_no_trouble():
    """Its end of file has not been read yet."""
    before = census()

    async def run():
        silent = Recorder(SourceSettings(), hear=lambda audio: None, command=["true"])
        os.waitid(os.P_PID, silent.pid, os.WEXITED | os.WNOWAIT)
        return await silent.stop()

    assert asyncio.run(run()) is None
    assert census() == before


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo one >&2; echo two >&2; exit 7", "exit status 7. Its last words: one; two."),
        ("kill -9 $$", "signal 9. Its last words: none."),
    ],
)
def test_a_recorder_that_crashes_leaves_its_last_words(recorder, make_ear, script, reason):
    ear = make_ear(recorder(script))
    running(ear, lambda: ear.told)
    assert ear.last_error == f"The process that records ended with {reason}"


def test_a_microphone_that_ends_in_good_order_is_opened_again(recorder, make_ear):
    ear = make_ear(recorder(f"{OPENED} head -c 100 /dev/zero"))
    running(ear, lambda: ear.n_reopened > 1)
    assert kinds(ear)[:5] == ["listening", "stalled", "recovered", "stalled", "recovered"]
    assert ear.told[1].detail == "It ended."


def test_a_recorder_that_cannot_be_started_is_tried_again(make_ear, tmp_path):
    ear = make_ear([str(tmp_path / "none")])
    running(ear, lambda: ear.told)
    assert ear.last_error.startswith("No process can be started to record: [Errno 2]")


def test_the_pause_is_short_again_after_audio_has_flowed(recorder, make_ear, tmp_path):
    pauses = []
    ear = make_ear(recorder(f"{OPENED} cat {tmp_path}/audio"), backlog_s=60)
    ear._pause_s = lambda n_failures: pauses.append(n_failures) or 0.0
    (tmp_path / "audio").write_bytes(bytes(100))
    running(ear, lambda: len(pauses) > 2)
    assert pauses[:3] == [0, 1, 2]
    (tmp_path / "audio").write_bytes(bytes(11 * SECOND))
    pauses.clear()
    running(ear, lambda: len(pauses) > 2)
    assert pauses[:3] == [0, 0, 0]


def test_a_device_that_is_plugged_in_ends_the_pause(recorder, make_ear, tmp_path, monkeypatch):
    monkeypatch.setattr(ears, "DEVICES", tmp_path / "snd")
    ear = make_ear(recorder(f"[ -e {tmp_path}/snd ] || exit 1; {OPENED} cat /dev/zero"))
    ear._pause_s = lambda n_failures: 600.0

    def plugged_in():
        if ear.state == "stalled" and not (tmp_path / "snd").exists():
            (tmp_path / "snd").mkdir()
        return ear.state == "listening"

    running(ear, plugged_in)
    assert kinds(ear) == ["stalled", "recovered"]


@pytest.mark.parametrize(
    "live",
    [{}, {"command": ["cat"], "input": "a.wav"}, {"input": "udp://127.0.0.1:1"}, {"input": "mic"}],
)
def test_all_but_files_live_for_ever(make_ear, live):
    assert not make_ear(["true"], **live).is_file
    assert make_ear(["true"], input="a.wav").is_file


def test_a_file_ends_and_is_not_opened_again(recorder, make_ear):
    ear = make_ear(recorder(f"{OPENED} head -c 100 /dev/zero"), input="a.wav")
    pieces = running(ear, lambda: False)
    assert (ear.state, ear.last_error, ear.is_over) == ("ended", None, True)
    assert kinds(ear) == ["listening"]
    assert len(audio_of(pieces)) == 100


def test_what_is_wrong_with_a_file_is_told_after_its_audio(recorder, make_ear):
    failed = """echo '{"report": "failed", "message": "It is cut."}' >&2; exit 3"""
    ear = make_ear(recorder(f"{OPENED} head -c 100 /dev/zero; {failed}"), input="a.wav")
    assert len(audio_of(running(ear, lambda: False))) == 100
    assert kinds(ear) == ["listening", "error"]
    assert (ear.state, ear.last_error) == ("ended", "It is cut.")


def test_a_file_waits_for_a_busy_machine_and_loses_nothing(recorder, make_ear):
    audio = f"head -c {60 * SECOND} /dev/zero"
    ear = make_ear(recorder(f"{OPENED} {audio}"), input="a.wav", backlog_s=1.0)

    async def run():
        task = asyncio.create_task(ear.run())
        await until(lambda: ear.backlog.is_full)
        await asyncio.sleep(1.5)  # longer than the limit of a stall
        n_heard, most_s = 0, 0.0
        while not ear.is_over:
            most_s = max(most_s, ear.backlog.waiting_s)
            piece = ear.take()
            n_heard += len(piece.audio) if piece else 0
            await asyncio.sleep(0)
        await task
        return n_heard, most_s

    n_heard, most_s = asyncio.run(run())
    assert n_heard == 60 * SECOND
    assert most_s < 2.0
    assert (ear.backlog.n_dropped, ear.last_error) == (0, None)


def test_when_nobody_takes_it_the_oldest_audio_goes(recorder, make_ear, caplog, tmp_path):
    ramp = (np.arange(60 * 16_000) % 32_768).astype("<i2").tobytes()
    (tmp_path / "audio").write_bytes(ramp)
    ear = make_ear(recorder(f"{OPENED} cat {tmp_path}/audio; exec sleep 60"), backlog_s=2.0)
    with caplog.at_level(logging.WARNING):
        pieces = running(ear, lambda: ear.backlog.n_received == 60 * 16_000)
    kept = audio_of(pieces)
    assert 0.4 * SECOND < len(kept) <= 2.0 * SECOND
    assert kept == ramp[-len(kept) :]
    assert pieces[0].is_after_gap
    assert pieces[0].start_sample == ear.backlog.n_dropped == (len(ramp) - len(kept)) // 2
    (line,) = [record.message for record in caplog.records]  # one, not one for each piece
    assert line.startswith("mic: the oldest audio was dropped, as the machine is too busy: ")


def test_audio_that_was_lost_before_it_came_is_counted_and_logged_once(
    recorder, make_ear, once, caplog
):
    def lost(*counts):
        reports = (f"""echo '{{"report": "lost", "n_chunks": {n}}}' >&2;""" for n in counts)
        return f"{OPENED} head -c 100 /dev/zero; {' '.join(reports)}"

    script = once(f"{lost(1, 3)} exit", f"{lost(2, 4)} exec sleep 60")
    ear = make_ear(recorder(script))
    with caplog.at_level(logging.WARNING):
        running(ear, lambda: ear.n_overruns == 7)
    assert [line for line in caplog.messages if "lost" in line] == [
        "mic: audio was lost on its way to the daemon; the machine may be too busy. Overruns so "
        "far: 1."
    ]


def test_a_source_that_defies_its_end_is_killed_with_all_it_started(recorder, make_ear, tmp_path):
    script = f"trap '' TERM; {OPENED} sleep 61 & echo $! $$ > {tmp_path}/pids; cat /dev/zero"
    ear = make_ear(recorder(script))
    running(ear, lambda: ear.backlog.n_received)
    asyncio.run(until(lambda: not any(map(is_alive, (tmp_path / "pids").read_text().split()))))


@pytest.mark.slow
def test_two_hundred_reopenings_leave_nothing_behind(recorder, make_ear, caplog):
    caplog.set_level(logging.CRITICAL)
    ear = make_ear(recorder(f"{OPENED} head -c 100 /dev/zero; exit 1"), pause_s=0.0)
    before, meanwhile = census(), set()

    def reopened():
        meanwhile.add(census()[:2])
        return ear.n_reopened >= 200

    running(ear, reopened, limit_s=240)
    assert census() == before
    loop, pipes = 3, 6  # descriptors
    assert max(meanwhile) <= (before[0] + loop + pipes, before[1])
