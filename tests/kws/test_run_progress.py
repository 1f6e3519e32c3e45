"""Where a run of `kws new` is, as the page reads it while the run writes it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from kws.run_progress import ProgressWriter, is_running, read_progress

STAGES = {"audio": 2.0, "training": 10.0}


def test_stages_and_messages_are_read_while_the_run_goes_on(tmp_path):
    with ProgressWriter(tmp_path, STAGES) as progress:
        assert is_running(tmp_path)
        assert read_progress(tmp_path).stage == ""
        progress.begin("training")
        progress.tell("  epoch 3 of 8\n")
        now = read_progress(tmp_path)
        assert (now.stages, now.stage, now.text) == (STAGES, "training", "epoch 3 of 8")
        assert now.began_s == pytest.approx(time.time(), abs=60)
    assert not is_running(tmp_path)
    assert read_progress(tmp_path).error == ""


@pytest.mark.parametrize(
    ("error", "text"), [(OSError("disk full"), "disk full"), (KeyboardInterrupt(), "interrupted")]
)
def test_what_ended_a_run_is_kept(tmp_path, error, text):
    with pytest.raises(type(error)), ProgressWriter(tmp_path, STAGES):
        raise error
    assert read_progress(tmp_path).error == text
    assert not is_running(tmp_path)


def test_a_run_that_was_killed_does_not_seem_to_go_on(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom kws.run_progress import ProgressWriter\n"
        "with ProgressWriter(Path(sys.argv[1]), {'audio': 1.0}) as progress:\n"
        "    progress.begin('audio')\n    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        assert is_running(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
    assert not is_running(tmp_path)
    assert read_progress(tmp_path).stage == "audio"


def test_a_folder_without_a_run_and_a_damaged_file_are_no_errors(tmp_path):
    assert read_progress(tmp_path) is None
    assert not is_running(tmp_path)
    (tmp_path / "progress.json").write_text('{"stages"')
    assert read_progress(tmp_path) is None


def test_a_full_disk_does_not_end_the_run(tmp_path):
    with ProgressWriter(tmp_path, STAGES) as progress:
        (tmp_path / ".progress.json.part").mkdir()
        progress.begin("audio")
    assert read_progress(tmp_path).stage == ""
