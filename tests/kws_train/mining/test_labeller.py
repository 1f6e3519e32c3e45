"""The labeller: keys are answers, each is kept, and a player that fails is said."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kws.errors import ConfigError
from kws.manifest import UNKNOWN
from kws.mined.clip_file import write_clip
from kws.mined.folder import UNSURE, Candidate, MinedFolder
from kws_train.mining import clip_player
from kws_train.mining.clip_player import ClipPlayer, player_command
from kws_train.mining.labeller import label_candidates, read_keys

FAKE_PLAYER = """
import shutil, sys
with open(sys.argv[1], "a") as log:
    log.write(str(len(open(sys.argv[2], "rb").read())) + "\\n")
"""


@pytest.fixture
def folder(tmp_path, manifest):
    mined = MinedFolder(tmp_path / "mined")
    candidates = []
    for i in range(4):
        name = f"00000000000{i}-00001500-go"
        clip = f"clips/{name}.flac"
        write_clip(mined.path / clip, np.full(16_000 + 1000 * i, 7, np.int16))
        candidates.append(
            Candidate(
                id=name,
                keyword="go",
                score=0.6,
                kind="near_miss",
                source=f"/recordings/{i}.wav",
                start_s=61.0,
                end_s=61.5,
                clip=clip,
                word_s=(0.5, 1.0),
                rank=i + 1,
                embedding=b"",
            )
        )
    mined.write_candidates(candidates, manifest=manifest)
    return mined


@pytest.fixture
def player(tmp_path):
    """A player that notes the size of what it plays."""
    program = tmp_path / "player.py"
    program.write_text(FAKE_PLAYER)
    return [sys.executable, str(program), str(tmp_path / "played")]


def press(folder, keys, *, player=("true",)):
    """Label with keys, and after them Ctrl-D; return how many are left and what was shown."""
    screen = io.StringIO()
    typed = iter(keys)

    def key():
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    console = Console(file=screen, force_terminal=True, width=90)
    return label_candidates(folder, player=player, console=console, key=key), screen.getvalue()


def labels(folder):
    return [folder.labels().get(one.id) for one in folder.candidates()]


def test_keys_are_answers(folder):
    n_left, shown = press(folder, "yn2u")
    assert n_left == 0
    assert labels(folder) == ["go", UNKNOWN, "stop", UNSURE]
    assert "1 of 4" in shown
    assert "go?" in shown
    assert "near miss, 0.60" in shown
    assert "0.wav, 1:01.5" in shown


def test_back_takes_the_last_answer_back(folder):
    n_left, shown = press(folder, "ynbbn")
    assert n_left == 3
    assert labels(folder) == [UNKNOWN, None, None, None]
    assert "Retracted: no keyword" in shown
    assert "Retracted: go" in shown


def test_back_at_the_beginning_does_nothing(folder):
    assert press(folder, "bby")[0] == 3
    assert labels(folder) == ["go", None, None, None]


def test_other_keys_do_nothing(folder):
    assert press(folder, "xY\x1b[A39y")[0] == 3


def test_what_is_labelled_is_not_offered_again(folder):
    press(folder, "yq")
    n_left, shown = press(folder, "n")
    assert n_left == 2
    assert "1 of 3" in shown
    assert labels(folder) == ["go", UNKNOWN, None, None]


@pytest.mark.parametrize("key", ["q", "\x04"])
def test_quitting_keeps_what_was_answered(folder, key):
    assert press(folder, f"y{key}nnn")[0] == 3
    assert labels(folder) == ["go", None, None, None]


def test_an_interruption_keeps_what_was_answered(folder):
    typed = iter("yn")

    def key():
        for pressed in typed:
            return pressed
        raise KeyboardInterrupt

    console = Console(file=io.StringIO())
    assert label_candidates(folder, player=["true"], console=console, key=key) == 2
    assert labels(folder) == ["go", UNKNOWN, None, None]


def test_each_clip_is_played_when_it_comes_and_again_on_space(folder, player, tmp_path):
    played = tmp_path / "played"

    def after(n):
        """Return keys that wait until so many clips were played."""
        deadline = time.monotonic() + 60
        while not played.exists() or len(played.read_text().split()) < n:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    typed = iter([(1, " "), (2, "y"), (3, "b"), (4, "q")])

    def key():
        n, pressed = next(typed)
        after(n)
        return pressed

    label_candidates(folder, player=player, console=Console(file=io.StringIO()), key=key)
    header, first, second = 44, 2 * 16_000, 2 * 17_000
    sizes = [int(size) - header for size in played.read_text().split()]
    assert sizes == [first, first, second, first]


def test_a_player_that_fails_is_said_and_labelling_goes_on(folder, monkeypatch):
    monkeypatch.setattr(clip_player, "_START_TIMEOUT_S", 30)
    failing = ["sh", "-c", "echo no sound card >&2; exit 3"]
    n_left, shown = press(folder, "y", player=failing)
    assert n_left == 3
    assert "Not played: sh ended with 3: no sound card" in shown


def test_a_player_that_is_not_there_is_said(folder):
    _, shown = press(folder, "y", player=["no-such-player"])
    assert "Not played: no-such-player cannot be run: No such file or directory" in shown


def test_a_clip_that_is_gone_is_said(folder):
    (folder.path / folder.candidates()[0].clip).unlink()
    n_left, shown = press(folder, "u")
    assert n_left == 3
    assert "Not played: An audio file must be readable." in shown


def test_the_next_key_stops_what_is_played(folder, tmp_path):
    clip = folder.path / folder.candidates()[0].clip
    one = ClipPlayer(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600"], tmp_path)
    assert one.play(clip) == ""
    deadline = time.monotonic() + 60
    while not (text := (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    one.stop()
    assert not Path(f"/proc/{int(text)}").exists()


def test_without_a_player_it_is_said_how_to_get_one(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    message = (
        "Labelling needs a program that plays sounds. Received: none of pw-play, paplay, aplay. "
        "Run `sudo apt install alsa-utils`, or name another, such as --player 'ffplay -nodisp "
        "-autoexit'; `--no-label` skips labelling."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        player_command(None)


@pytest.mark.parametrize(
    ("command", "start"),
    [
        ("", "Labelling needs a program that plays sounds. Received: an empty --player."),
        ("play '", "`--player` must have its quotes in pairs. Received: `play '` ("),
    ],
)
def test_a_player_that_is_no_command_is_said(command, start):
    with pytest.raises(ConfigError, match=f"^{re.escape(start)}"):
        player_command(command)


def test_a_player_is_a_program_and_its_options():
    assert player_command("play -q --gain '1 2'") == ["play", "-q", "--gain", "1 2"]


def test_keys_typed_early_are_not_lost_and_the_terminal_is_put_in_order():
    import termios

    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    with os.fdopen(follower, "r") as terminal:
        os.write(leader, b"y")
        with read_keys(terminal) as key:
            os.write(leader, b"n ")
            during = termios.tcgetattr(terminal)
            assert [key(), key(), key()] == ["y", "n", " "]
            assert not during[3] & (termios.ECHO | termios.ICANON)
        assert termios.tcgetattr(terminal) == before
    os.close(leader)


def test_ctrl_c_between_two_keys_is_raised_at_the_next():
    leader, follower = pty.openpty()
    before = signal.getsignal(signal.SIGINT)
    with os.fdopen(follower, "r") as terminal, read_keys(terminal) as key:
        signal.raise_signal(signal.SIGINT)
        os.write(leader, b"y")
        with pytest.raises(KeyboardInterrupt):
            key()
    assert signal.getsignal(signal.SIGINT) is before
    os.close(leader)


class Terminal:
    """`kws mine --out FOLDER` in a terminal of its own."""

    def __init__(self, folder):
        leader, follower = pty.openpty()
        self._leader, self._seen = leader, b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kws", "mine", "--out", folder.path, "--player", "true"],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "90"},
        )
        os.close(follower)

    def wait_for(self, text, *, limit_s=120):
        """Read until some text was shown."""
        deadline = time.monotonic() + limit_s
        while text.encode() not in self._seen:
            if (left_s := deadline - time.monotonic()) <= 0:
                self.process.kill()
                self.end()
                pytest.fail(f"never shown: {text!r}, but: {self._seen!r}")
            if select.select([self._leader], [], [], left_s)[0]:
                self._seen += os.read(self._leader, 65_536)

    def press(self, keys):
        os.write(self._leader, keys.encode())

    def end(self):
        """Wait for its end; return the exit code."""
        code = self.process.wait(120)
        os.close(self._leader)
        return code


@pytest.mark.slow
def test_a_labeller_that_is_killed_goes_on_where_it_was(folder):
    killed = Terminal(folder)
    killed.wait_for("1 of 4")
    killed.press("yn")
    killed.wait_for("3 of 4")
    killed.process.kill()
    assert killed.end() == -signal.SIGKILL
    assert labels(folder) == ["go", UNKNOWN, None, None]
    again = Terminal(folder)
    again.wait_for("1 of 2")
    again.press("uy")
    again.wait_for("Next: kws train --fine-tune")
    assert again.end() == 0
    assert labels(folder) == ["go", UNKNOWN, UNSURE, "go"]
    assert len(list(folder.words.rglob("*.flac"))) == 3


@pytest.mark.slow
def test_a_labeller_that_is_interrupted_says_what_is_left(folder):
    terminal = Terminal(folder)
    terminal.wait_for("1 of 4")
    terminal.press("y")
    terminal.wait_for("2 of 4")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("3 candidates are left; run the same command to continue.")
    terminal.wait_for(": go 1")
    assert terminal.end() == 0
