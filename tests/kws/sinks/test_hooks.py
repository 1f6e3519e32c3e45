import json
import os
import pwd
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from kws.config import HookSettings
from kws.errors import HookError
from kws.events import Detection, End, NearMiss, StateChange
from kws.sinks import hook as hook_module
from kws.sinks import hooks as hooks_module
from kws.sinks.hooks import HookCounts, Hooks

STOP = Detection(keyword="stop", score=0.97, start_s=12.34, end_s=12.81, model="commands")
KEYWORDS = ("go", "stop", "yes")


def opened(*settings, **options):
    return Hooks(settings, keywords=KEYWORDS, **options)


def sh(line, *arguments, keyword="*", **settings):
    """Settings of a hook that runs a shell line with $1, $2 ..."""
    command = ["/bin/sh", "-c", line, "sh", *map(str, arguments)]
    return HookSettings(keyword=keyword, command=command, **settings)


def run(*settings, event=STOP):
    """Send one event, wait for its hooks, and return the counts."""
    hooks = opened(*settings)
    hooks.send(event)
    hooks.close()
    return hooks.counts


def test_a_hook_gets_the_event_in_its_environment_and_on_standard_input(tmp_path):
    line = 'env | grep -a ^KWS_ | sort > "$1"; cat > "$2"'
    hooks = opened(sh(line, tmp_path / "env", tmp_path / "stdin"), clock=lambda: 1767323045.678)
    hooks.send(STOP)
    hooks.close()
    assert (tmp_path / "env").read_text() == (
        "KWS_END_S=12.81\n"
        "KWS_EVENT=detection\n"
        "KWS_KEYWORD=stop\n"
        "KWS_MODEL=commands\n"
        "KWS_SCORE=0.97\n"
        "KWS_START_S=12.34\n"
        "KWS_TIME=2026-01-02T03:04:05.678Z\n"
    )
    assert (tmp_path / "stdin").read_text() == (
        '{"event":"detection","keyword":"stop","score":0.97,'
        '"start_s":12.34,"end_s":12.81,"model":"commands"}\n'
    )
    assert hooks.counts == HookCounts(started=1, ok=1)


def test_the_rest_of_the_environment_is_inherited(tmp_path, monkeypatch):
    monkeypatch.setenv("GREETING", "hello there")
    run(sh('printf %s "$GREETING" > "$1"', tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "hello there"


@pytest.mark.parametrize("word", ["$(touch broken)", "`touch broken`; touch broken", "'; \"*", "ö"])
def test_a_hostile_keyword_reaches_a_shell_as_plain_text(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hook = HookSettings(
        keyword=word, command='printf %s "$KWS_KEYWORD" >env; cat >stdin', shell=True
    )
    hooks = Hooks([hook], keywords=[word])
    hooks.send(Detection(keyword=word, score=0.5, start_s=0.0, end_s=1.0, model="m"))
    hooks.close()
    assert (tmp_path / "env").read_bytes() == word.encode()
    assert json.loads((tmp_path / "stdin").read_bytes())["keyword"] == word
    assert names(tmp_path) == ["env", "stdin"]


def test_a_string_is_run_without_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(HookSettings(keyword="*", command="touch $KWS_KEYWORD 'a; b' ~"))
    assert names(tmp_path) == ["$KWS_KEYWORD", "a; b", "~"]


def test_only_the_hooks_of_the_keyword_run(tmp_path):
    counts = run(
        sh("touch $1", tmp_path / "all"),
        sh("touch $1", tmp_path / "stop", keyword="stop"),
        sh("touch $1", tmp_path / "go", keyword="go"),
    )
    assert names(tmp_path) == ["all", "stop"]
    assert counts == HookCounts(started=2, ok=2)


def test_the_end_of_a_file_runs_no_hook():
    assert run(sh("true"), event=End(audio_s=1.0, detections=0, cpu_s=0.1)) == HookCounts()


def test_a_near_miss_runs_no_hook():
    event = NearMiss(keyword="stop", score=0.4, start_s=0.0, end_s=1.0, model="m")
    assert run(sh("true"), event=event) == HookCounts()


def test_ctrl_c_on_the_terminal_does_not_reach_a_hook(tmp_path):
    run(sh('ps -o sid= -o pgid= -p $$ > "$1"; echo $$ >> "$1"', tmp_path / "ids"))
    assert len(set((tmp_path / "ids").read_text().split())) == 1


def test_a_hook_that_hangs_is_killed_with_its_children(tmp_path, caplog):
    line = 'sleep 60 & echo $! > "$1"; sleep 60 & echo $! >> "$1"; echo $$ >> "$1"; wait'
    hook = sh(line, tmp_path / "pids", timeout_s=0.3)
    before_s = time.monotonic()
    assert run(hook) == HookCounts(started=1, timed_out=1)
    assert 0.3 <= time.monotonic() - before_s < 5
    assert len(pids(tmp_path)) == 3
    assert not [pid for pid in pids(tmp_path) if is_running(pid)]
    assert caplog.messages[0].endswith(
        "` ran for `stop` longer than 0.3 s, its `timeout_s`, and was ended."
    )


def test_a_hook_may_tidy_up_on_sigterm(tmp_path):
    line = 'trap "touch $1; exit" TERM; while :; do sleep 0.05; done'
    assert run(sh(line, tmp_path / "tidy", timeout_s=0.3)).timed_out == 1
    assert (tmp_path / "tidy").exists()


def test_a_hook_that_ignores_sigterm_is_killed(tmp_path):
    line = 'trap "" TERM; sleep 60 & echo $! > "$1"; echo $$ >> "$1"; wait; sleep 60'
    before_s = time.monotonic()
    assert run(sh(line, tmp_path / "pids", timeout_s=0.2)).timed_out == 1
    assert 0.7 <= time.monotonic() - before_s < 5
    deadline_s = time.monotonic() + 5  # the orphan is reaped by init, in its own time
    while any(map(is_running, pids(tmp_path))):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_what_a_hook_leaves_behind_is_killed_at_the_timeout(tmp_path):
    line = 'sleep 60 </dev/null >/dev/null 2>&1 & echo $! > "$1"'
    before_s = time.monotonic()
    assert run(sh(line, tmp_path / "pids", timeout_s=0.5)).timed_out == 1
    assert time.monotonic() - before_s >= 0.5
    assert not is_running(*pids(tmp_path))


def test_what_a_hook_leaves_behind_may_finish_before_the_timeout(tmp_path):
    line = '(sleep 0.3; touch "$1") &'
    assert run(sh(line, tmp_path / "finished", timeout_s=20.0)) == HookCounts(started=1, ok=1)
    assert (tmp_path / "finished").exists()


def test_output_without_end_is_neither_waited_for_nor_kept(caplog):
    flood = "head -c 100000000 /dev/zero; head -c 100000000 /dev/zero | tr '\\0' x >&2; exit 3"
    hooks = opened(sh(flood))
    tracemalloc.start()
    tracemalloc.reset_peak()
    before_bytes, _ = tracemalloc.get_traced_memory()
    before_s = time.monotonic()
    hooks.send(STOP)
    assert time.monotonic() - before_s < 0.25
    hooks.close()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert hooks.counts == HookCounts(started=1, failed=1)
    assert caplog.messages[0].endswith(f" stderr: {200 * 'x'}...")
    assert peak_bytes - before_bytes < 2_000_000


def test_standard_input_that_is_never_read_holds_nothing_up():
    long = Detection(keyword=100_000 * "a", score=0.5, start_s=0.0, end_s=1.0, model="m")
    before_s = time.monotonic()
    assert run(sh("exec sleep 60", timeout_s=0.2), event=long).timed_out == 1
    assert time.monotonic() - before_s < 5


def test_standard_input_that_is_closed_at_once_is_no_failure():
    assert run(sh("exec <&-; sleep 0.05")).ok == 1


def test_an_exit_status_is_logged_with_the_end_of_standard_error(caplog):
    counts = run(sh("seq 10000 >&2; echo the lamp is off >&2; exit 7", keyword="stop"))
    assert counts == HookCounts(started=1, failed=1)
    (message,) = caplog.messages
    assert " failed for `stop` with exit status 7. stderr: " in message
    assert message.endswith(" 9999; 10000; the lamp is off")
    assert caplog.records[0].levelname == "WARNING"


def test_a_silent_failure_is_logged_too(caplog):
    run(HookSettings(keyword="*", command="false"))
    assert caplog.messages == ["Hook `false` failed for `stop` with exit status 1. stderr: none."]


def test_a_hook_ended_by_a_signal_is_logged(caplog):
    assert run(sh("kill -SEGV $$")).failed == 1
    assert " failed for `stop` with signal 11. " in caplog.messages[0]


def test_a_program_that_vanished_is_logged(tmp_path, caplog):
    file = script(tmp_path / "ring", "#!/bin/sh\n")
    hooks = opened(HookSettings(keyword="*", command=[str(file)]))
    file.unlink()
    hooks.send(STOP)
    hooks.close()
    assert hooks.counts == HookCounts(failed=1)
    assert caplog.messages == [
        f"Hook `{file}` cannot be started for `stop`: "
        f"[Errno 2] No such file or directory: '{file}'."
    ]


def test_a_script_without_its_first_line_is_logged_with_the_remedy(tmp_path, caplog):
    file = script(tmp_path / "ring", "echo ring\n")
    assert run(HookSettings(keyword="*", command=[str(file)])) == HookCounts(failed=1)
    assert caplog.messages == [
        f"Hook `{file}` cannot be started for `stop`: [Errno 8] Exec format error: '{file}'. "
        f"Its first line must name its interpreter, such as #!/bin/sh."
    ]


def test_a_system_without_threads_is_logged(monkeypatch, caplog):
    def fail(self):
        raise RuntimeError("can't start new thread")

    hooks = opened(HookSettings(keyword="*", command="true"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        hooks.send(STOP)
    hooks.close()
    assert hooks.counts == HookCounts(failed=1)
    assert caplog.messages == ["Hook `true` was not run for `stop`: can't start new thread."]


def test_without_threads_a_hook_and_its_queue_give_back_mute_and_their_places(monkeypatch):
    hooks = opened(HookSettings(command="true", mute=True, max_running=1, max_queued=2))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", queueing(hooks))
        hooks.send(STOP)
    assert hooks.counts == HookCounts(failed=2)
    assert not hooks.muted
    hooks.send(STOP)
    hooks.close()
    assert hooks.counts == HookCounts(started=1, ok=1, failed=2)


def queueing(hooks):
    """Return a start of threads that fails after another event has been queued."""

    sent = []

    def fail(thread):
        if not sent:
            sent.append(thread)
            hooks.send(STOP)
        raise RuntimeError("can't start new thread")

    return fail


@pytest.mark.parametrize("error", [RuntimeError("x"), MemoryError(), KeyError("x"), TypeError("x")])
@pytest.mark.parametrize("place", ["ProcessGroup.__init__", "Hooks._play"])
def test_an_error_of_any_kind_at_the_start_gives_back_mute_and_the_place(
    monkeypatch, caplog, error, place
):
    def fail(*_, **__):
        raise error

    hooks = opened(HookSettings(command="true", mute=True, max_running=1))
    with monkeypatch.context() as patch:
        patch.setattr(f"kws.sinks.hooks.{place}", fail)
        hooks.send(STOP)
        hooks.close()
    assert hooks.counts == HookCounts(failed=1)
    assert not hooks.muted
    assert caplog.messages == ["Hook `true` failed for `stop` by an error of kws."]
    hooks._closed = False
    hooks.send(STOP)
    hooks.close()
    assert hooks.counts == HookCounts(started=1, ok=1, failed=1)


def test_the_program_of_the_check_is_run_whatever_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    script(tmp_path / "ring", f"#!/bin/sh\npwd > {tmp_path}/right\n")
    script(tmp_path / "other" / "ring", f"#!/bin/sh\ntouch {tmp_path}/wrong\n")
    run(HookSettings(command="./ring", working_directory=str(tmp_path / "other")))
    assert (tmp_path / "right").read_text() == f"{tmp_path}/other\n"
    assert not (tmp_path / "wrong").exists()


def test_a_detail_with_nul_characters_reaches_the_hook(tmp_path):
    event = StateChange(event="error", time="2026-01-02T03:04:05Z", detail="a\0b")
    hook = sh('printf %s "$KWS_DETAIL" > "$1"', tmp_path / "detail", on=("error",))
    assert run(hook, event=event) == HookCounts(started=1, ok=1)
    assert (tmp_path / "detail").read_text() == r"a\0b"


def test_what_a_hook_wrote_last_is_escaped(caplog):
    run(sh(r"printf '\033]0;x\007\nERROR: root\r\302\233' >&2; exit 1"))
    assert caplog.messages[0].endswith(r" stderr: \x1b]0;x\x07; ERROR: root; \x9b")


def test_the_table_of_cooldowns_is_bounded():
    hook = hook_module.Hook(
        HookSettings(command="true", cooldown_s=60), keywords=KEYWORDS, place="entry 1"
    )
    events = [msgspec.structs.replace(STOP, keyword=str(i)) for i in range(300)]
    assert not any(map(hook.is_cooling_down, events))
    assert len(hook._last_s) == 256
    assert hook.is_cooling_down(events[-1])
    assert not hook.is_cooling_down(events[0])


def test_a_hook_of_another_user_inherits_nothing_from_kws(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("LD_PRELOAD", "/x.so")
    (tmp_path / "awake.wav").write_bytes(b"RIFF")
    script(tmp_path / "pw-play", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    me = pwd.getpwuid(os.geteuid())
    settings = HookSettings(
        command="true",
        user=me.pw_name,
        environment={"ROOM": "hall"},
        awake_wav=str(tmp_path / "awake.wav"),
    )
    hook = hook_module.Hook(settings, keywords=KEYWORDS, place="entry 1")
    expected = {
        b"HOME": me.pw_dir.encode(),
        b"USER": me.pw_name.encode(),
        b"LOGNAME": me.pw_name.encode(),
        b"SHELL": me.pw_shell.encode(),
        b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        b"ROOM": b"hall",
    }
    assert hook.environment({b"KWS_EVENT": b"start"}) == expected | {b"KWS_EVENT": b"start"}
    started = []

    def keep(words, **options):
        started.append((words[0], options["environment"], options["account"]))
        raise OSError

    monkeypatch.setattr(hooks_module, "ProcessGroup", keep)
    run(settings)
    (player, environment, account), (_, _, of_command) = started
    assert (player, environment) == ("pw-play", expected)
    assert account == of_command == hook.account


def test_a_process_that_cannot_be_killed_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(hooks_module, "ProcessGroup", Immortal)
    assert run(HookSettings(keyword="*", command="true")) == HookCounts(started=1, timed_out=1)
    assert caplog.messages == [
        "Hook `true` (process group 7) cannot be killed.",
        "Hook `true` ran for `stop` longer than 30 s, its `timeout_s`, and was ended.",
    ]


def test_a_detection_beyond_max_running_is_dropped(caplog):
    hooks = opened(sh("sleep 0.5", max_running=2), sh("true"))
    for _ in range(3):
        hooks.send(STOP)
    hooks.close()
    assert hooks.counts == HookCounts(started=5, ok=5, dropped=1)
    assert caplog.messages == [
        "Hook `/bin/sh -c 'sleep 0.5' sh` was not run for `stop`: 2 of it are running, "
        "its `max_running`."
    ]


def test_a_hook_that_ended_makes_room():
    hooks = opened(HookSettings(keyword="*", command="true", max_running=1))
    for n in range(1, 4):
        hooks.send(STOP)
        wait_until(lambda n=n: hooks.counts.ok == n)
    hooks.close()
    assert hooks.counts == HookCounts(started=3, ok=3)


def test_fifty_detections_leave_nothing_behind():
    hooks = opened(
        sh("cat >/dev/null; echo x >&2; exit 1", max_running=64),
        sh("sleep 60", timeout_s=0.2, max_running=1),
    )
    before = descriptors(), threading.enumerate(), children()
    for _ in range(50):
        hooks.send(STOP)
    hooks.close()
    assert (descriptors(), threading.enumerate(), children()) == before
    assert hooks.counts.failed == 50
    assert hooks.counts.timed_out + hooks.counts.dropped == 50


def test_a_start_that_is_slow_does_not_hold_up_the_sender(monkeypatch):
    def slow(*args, **kwargs):
        time.sleep(0.5)
        raise OSError("the disk sleeps")

    monkeypatch.setattr(hooks_module, "ProcessGroup", slow)
    hooks = opened(sh("true"))
    before_s = time.monotonic()
    hooks.send(STOP)
    assert time.monotonic() - before_s < 0.25
    hooks.close()
    assert hooks.counts == HookCounts(failed=1)


def test_closing_waits_for_what_runs(tmp_path):
    assert run(sh('sleep 0.4; touch "$1"', tmp_path / "done")).ok == 1
    assert (tmp_path / "done").exists()


def test_closing_with_kill_ends_what_runs(tmp_path, caplog):
    hooks = opened(sh('sleep 60 & echo $! > "$1"; wait', tmp_path / "pids"))
    hooks.send(STOP)
    wait_until(lambda: (tmp_path / "pids").exists() and pids(tmp_path))
    before_s = time.monotonic()
    hooks.close(kill=True)
    assert time.monotonic() - before_s < 2
    assert not is_running(*pids(tmp_path))
    assert hooks.counts == HookCounts(started=1, failed=1)
    assert caplog.messages[0].endswith(" was running for `stop` when kws ended, and was ended.")


def test_an_interrupted_close_may_be_followed_by_one_that_kills(monkeypatch):
    def interrupt(self, timeout=None):
        raise KeyboardInterrupt

    hooks = opened(sh("sleep 60"))
    hooks.send(STOP)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            hooks.close()
    hooks.close(kill=True)
    assert hooks.counts.failed == 1


def test_nothing_starts_after_closing():
    hooks = opened(sh("true"))
    hooks.close()
    hooks.send(STOP)
    hooks.close()
    assert hooks.counts == HookCounts()


def test_a_hook_for_an_unknown_keyword_is_refused():
    with pytest.raises(HookError) as caught:
        opened(sh("true", keyword="stop"), sh("true", keyword="stpo"))
    assert str(caught.value) == (
        "A hook's `keyword` must be `*` or one of the model's. Received: `stpo` in "
        "entry 2 of [[hooks]]. Did you mean `stop`? The keywords are: go, stop, yes."
    )
    assert caught.value.exit_code == 5


def test_a_hook_that_does_not_exist_is_refused():
    with pytest.raises(HookError) as caught:
        opened(HookSettings(keyword="*", command=["no-such-program", "x"]))
    assert str(caught.value) == (
        "A hook's program must exist and be executable. Received: `no-such-program` in "
        "entry 1 of [[hooks]] (not on PATH). Install it, or write its whole path."
    )


STALLED = StateChange(
    event="stalled", time="2026-01-02T03:04:05.678Z", source="kitchen", detail="no audio"
)


def test_a_hook_runs_on_the_states_it_names(tmp_path):
    line = 'env | grep -a ^KWS_ | sort > "$1"; cat > "$2"'
    hook = sh(line, tmp_path / "env", tmp_path / "stdin", on=("stalled", "stop"))
    assert run(hook, sh("touch $1", tmp_path / "word"), event=STALLED).ok == 1
    assert (tmp_path / "env").read_text() == (
        "KWS_DETAIL=no audio\n"
        "KWS_EVENT=stalled\n"
        "KWS_SOURCE=kitchen\n"
        "KWS_TIME=2026-01-02T03:04:05.678Z\n"
    )
    assert json.loads((tmp_path / "stdin").read_text()) == {
        "event": "stalled",
        "time": "2026-01-02T03:04:05.678Z",
        "source": "kitchen",
        "detail": "no audio",
    }
    assert run(hook, event=STOP) == HookCounts(), "detections are not among them"
    assert names(tmp_path) == ["env", "stdin"]


def test_what_finds_no_room_waits_its_turn_up_to_max_queued(tmp_path, caplog):
    hooks = opened(sh('sleep 0.2; echo x >> "$1"', tmp_path / "runs", max_running=1, max_queued=2))
    for _ in range(4):
        hooks.send(STOP)
    hooks.close()
    assert (tmp_path / "runs").read_text() == "x\nx\nx\n"
    assert hooks.counts == HookCounts(started=3, ok=3, dropped=1)
    assert caplog.messages[0].endswith("its `max_running`, and 2 wait, its `max_queued`.")


def test_what_waits_is_dropped_when_kws_is_stopped(tmp_path):
    hooks = opened(sh('touch "$1"; sleep 60', tmp_path / "runs", max_running=1, max_queued=9))
    for _ in range(4):
        hooks.send(STOP)
    wait_until((tmp_path / "runs").exists)
    hooks.close(kill=True)
    assert hooks.counts == HookCounts(started=1, failed=1, dropped=3)
    assert not hooks.muted


def test_a_keyword_is_passed_over_while_its_hook_cools_down(monkeypatch):
    clock = [100.0]
    hooks = opened(HookSettings(command="true", cooldown_s=5.0, max_running=9))
    stopped = SimpleNamespace(monotonic=lambda: clock[0])  # processes keep the real clock
    monkeypatch.setattr(hook_module, "time", stopped)
    for now_s, keyword in [(100.0, "stop"), (104.9, "stop"), (104.9, "go"), (105.0, "stop")]:
        clock[0] = now_s
        hooks.send(msgspec.structs.replace(STOP, keyword=keyword))
    monkeypatch.undo()
    wait_until(lambda: hooks.counts == HookCounts(started=3, ok=3, cooled=1))
    hooks.close()


def test_nothing_is_heard_while_a_muting_hook_runs_and_somewhat_longer():
    hooks = opened(sh("sleep 0.3", keyword="stop", mute=True, mute_after_s=0.4), sh("true"))
    hooks.send(msgspec.structs.replace(STOP, keyword="go"))
    assert not hooks.muted
    hooks.send(STOP)
    assert hooks.muted, "from the event on, not from the start of a process"
    hooks.close()
    assert hooks.muted
    wait_until(lambda: not hooks.muted)


def test_the_sound_is_played_with_the_hook(tmp_path, monkeypatch, caplog):
    script(tmp_path / "aplay", f'#!/bin/sh\necho "$@" > {tmp_path}/played\n')
    (tmp_path / "awake.wav").write_bytes(b"RIFF")
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    hook = HookSettings(command="/bin/true", awake_wav=str(tmp_path / "awake.wav"))
    assert run(hook) == HookCounts(started=1, ok=1)
    assert (tmp_path / "played").read_text() == f"-q {tmp_path}/awake.wav\n"
    assert caplog.messages == []


def test_a_sound_that_never_ends_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(hooks_module, "_LONGEST_SOUND_S", 0.2)
    script(tmp_path / "aplay", f"#!/bin/sh\necho $$ > {tmp_path}/pids\nexec /bin/sleep 60\n")
    (tmp_path / "awake.wav").write_bytes(b"RIFF")
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    hook = HookSettings(command="/bin/true", awake_wav=str(tmp_path / "awake.wav"))
    started_s = time.monotonic()
    assert run(hook) == HookCounts(started=1, ok=1)
    assert time.monotonic() - started_s < 30
    (pid,) = pids(tmp_path)
    wait_until(lambda: not is_running(pid))


def test_a_sound_that_cannot_be_played_does_not_stop_the_hook(tmp_path, monkeypatch, caplog):
    script(tmp_path / "aplay", "#!/bin/sh\necho no device >&2; exit 1\n")
    (tmp_path / "awake.wav").write_bytes(b"RIFF")
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    hook = HookSettings(command="/bin/true", awake_wav=str(tmp_path / "awake.wav"))
    assert run(hook) == HookCounts(started=1, ok=1)
    assert caplog.messages == ["A hook's sound was not played: no device"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"awake_wav": "/no/such.wav"},
            "A hook's `awake_wav` must be a sound file. Received: `/no/such.wav` in entry 1 of "
            "[[hooks]], which is none. Correct the path.",
        ),
        (
            {"working_directory": "/no/such"},
            "A hook's `working_directory` must be a folder. Received: `/no/such` in entry 1 of "
            "[[hooks]], which is none. Create it, or correct the path.",
        ),
        (
            {"environment": {"A=B": "c"}},
            "A hook's `environment` must hold names without `=` and no NUL characters. Received: "
            "'A=B' in entry 1 of [[hooks]]. Correct it.",
        ),
        (
            {"user": "nobodyy"},
            "A hook's `user` must be a user of this system. Received: `nobodyy` in entry 1 of "
            "[[hooks]]. Did you mean `nobody`? `getent passwd` lists them.",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(HookError) as caught:
        opened(HookSettings(command="true", **settings))
    assert str(caught.value) == message


def test_only_root_may_run_a_hook_as_somebody_else(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("daemon").pw_uid)
    with pytest.raises(HookError) as caught:
        opened(HookSettings(command="true", user="nobody"))
    assert str(caught.value) == (
        "Only root may run a hook as another `user`. Received: `nobody` in entry 1 of [[hooks]], "
        "and kws run by daemon. Leave `user` out, or use sudo in the command."
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the user")
def test_a_hook_runs_as_its_user_in_its_folder_with_its_variables(tmp_path):
    (tmp_path / "out").touch()
    (tmp_path / "out").chmod(0o666)
    line = 'id -un >&3; id -Gn >&3; pwd >&3; echo "$HOME $USER $ROOM $KWS_KEYWORD" >&3'
    hook = sh(
        f"exec 3>> {tmp_path}/out; {line}",
        user="nobody",
        working_directory="/usr",
        environment={"ROOM": "hall", "KWS_KEYWORD": "mine"},
    )
    open_to_all(tmp_path)
    assert run(hook) == HookCounts(started=1, ok=1)
    home = pwd.getpwnam("nobody").pw_dir
    assert (tmp_path / "out").read_text().splitlines() == [
        "nobody",
        "nogroup",
        "/usr",
        f"{home} nobody hall stop",
    ]


def test_the_keyword_alone_is_written_for_programs_of_wyoming_satellite(tmp_path):
    run(sh('cat > "$1"', tmp_path / "stdin", keyword_on_stdin=True))
    assert (tmp_path / "stdin").read_text() == "stop\n"


def open_to_all(folder: Path) -> None:
    """Let every user reach a folder of pytest's, which are the owner's alone."""
    for each in (folder, *folder.parents):
        if each.stat().st_uid == os.geteuid() and each != Path(each.anchor):
            each.chmod(each.stat().st_mode | 0o111)


def pids(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def is_running(pid: int) -> bool:
    return state_and_parent(pid)[0] not in "ZX"


def children() -> list[int]:
    every = [int(name) for name in names(Path("/proc")) if name.isdecimal()]
    return [pid for pid in every if state_and_parent(pid)[1] == os.getpid()]


def state_and_parent(pid: int) -> tuple[str, int]:
    """Read what Linux says of a process (proc_pid_stat(5)); X where it says nothing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[1])


def descriptors() -> list[str]:
    return names(Path("/proc/self/fd"))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def wait_until(happened) -> None:
    deadline_s = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def script(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o755)
    return file


class Immortal:
    """A process group that goes on whatever is done."""

    pid = 7
    was_signalled = True

    def __init__(self, words, **options):
        pass

    def wait(self, timeout_s, *, cancelled):
        return False

    def end(self):
        return False

    def close(self):
        return None, ""
