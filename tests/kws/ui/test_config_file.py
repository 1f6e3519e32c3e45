"""Thresholds go into kws.toml with comments, order and the old value kept, or not at all."""

import os
import re
from datetime import date

import pytest

from kws.config import parse_config
from kws.errors import ConfigError
from kws.ui.config_file import ThresholdChange, propose, write
from kws.ui.requests import OutdatedError

TODAY = date.today().isoformat()
STOP = ThresholdChange(model=0, keyword="stop", value=0.62, old=0.85)
GO = ThresholdChange(model=0, keyword="go", value=0.5, old=0.9)


def written(path, *changes):
    """Write changes as the page does, after a look at the difference."""
    write(path, changes, digest=propose(path, changes).digest)
    return path.read_bytes().decode()


@pytest.fixture
def config(tmp_path):
    def config(text):
        path = tmp_path / "kws.toml"
        path.write_bytes(text.encode())
        return path

    return config


def test_only_the_value_changes_and_the_old_one_is_kept(config):
    before = """# My kitchen.
[gate]
hangover_ms = 700   # long words

[decision.thresholds]
go = 0.9
stop = 0.85  # rather seldom

[[hooks]]
keyword = "stop"
command = ["true"]
"""
    after = written(config(before), STOP)
    assert after == before.replace(
        "stop = 0.85  # rather seldom",
        f"stop = 0.62  # rather seldom; was 0.85 until {TODAY}",
    )


def test_the_difference_is_what_is_written(config):
    path = config("[decision.thresholds]\nstop = 0.85\n")
    proposal = propose(path, [STOP])
    assert path.read_text() == "[decision.thresholds]\nstop = 0.85\n"
    assert proposal.diff[1:] == [
        " [decision.thresholds]",
        "-stop = 0.85",
        f"+stop = 0.62  # was 0.85 until {TODAY}",
    ]


def test_a_second_change_keeps_one_old_value(config):
    path = config("[decision.thresholds]\nstop = 0.7 # mine\n")
    written(path, STOP)
    again = ThresholdChange(model=0, keyword="stop", value=0.5, old=0.62)
    assert written(path, again).splitlines()[1] == f"stop = 0.5 # mine; was 0.62 until {TODAY}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "[gate]\nenabled = true\n",
        "[decision]\nrefractory_ms = 900\n",
        "[decision]\nfalse_alarms_per_hour = 1.0\n",
        "[decision]\nthresholds = { stop = 0.85 }\n",
        "decision = { thresholds = { stop = 0.85 } }\n",
        "decision.thresholds.stop = 0.85\n",
        '[decision.thresholds]\n"stop" = 0.85\n',
        "[[models]]\nname = 'commands'\n",
        "[[models]]\nname = 'commands'\n[models.decision]\nthreshold = 0.5\n",
        "[[models]]\nname = 'commands'\ndecision = { threshold = 0.5 }\n",
        "[[models]]\nname = 'commands'\n[[models]]\nname = 'computer'\n",
        "[decision]\nrefractory_ms = 900\n[[models]]\nname = 'commands'\n"
        "[[models]]\nname = 'computer'\n",
    ],
)
def test_wherever_thresholds_stand_the_new_one_is_in_effect(config, text):
    after = parse_config(written(config(text), STOP, GO))
    before = parse_config(text)
    first, *others = after.every_model
    assert first.decision.thresholds["stop"] == 0.62
    assert first.decision.thresholds["go"] == 0.5
    assert first.decision.refractory_ms == before.every_model[0].decision.refractory_ms
    assert first.decision.threshold == before.every_model[0].decision.threshold
    assert others == before.every_model[1:]
    assert (after.gate, after.source) == (before.gate, before.source)


def test_each_of_several_models_gets_its_own(config):
    text = "[[models]]\nname = 'commands'\n[[models]]\nname = 'computer'  # kitchen\n"
    after = written(
        config(text), ThresholdChange(model=1, keyword="computer", value=0.3, old=0.5), STOP
    )
    one, two = parse_config(after).every_model
    assert one.decision.thresholds == {"stop": 0.62}
    assert two.decision.thresholds == {"computer": 0.3}
    assert "# kitchen" in after


def test_bytes_that_a_diff_does_not_show_stay(config):
    path = config("\ufeff[decision.thresholds]\r\nstop = 0.85\r\n")
    written(path, STOP)
    content = path.read_bytes()
    assert content.startswith("\ufeff".encode())
    assert content.count(b"\r\n") == content.count(b"\n") == 2


def test_a_file_that_changed_on_disk_is_not_overwritten(config):
    path = config("[decision.thresholds]\nstop = 0.85\n")
    proposal = propose(path, [STOP])
    path.write_text("[decision.thresholds]\nstop = 0.4\n")
    with pytest.raises(OutdatedError, match=r"^kws\.toml has changed on disk since this page"):
        write(path, [STOP], digest=proposal.digest)
    assert path.read_text() == "[decision.thresholds]\nstop = 0.4\n"


def test_nothing_is_written_that_kws_could_not_read_again(config):
    path = config("[gate]\n")
    for wrong in (
        ThresholdChange(model=0, keyword="stop", value=1.5, old=0.5),
        ThresholdChange(model=0, keyword="stop", value=float("nan"), old=0.5),
        ThresholdChange(model=3, keyword="stop", value=0.5, old=0.5),
    ):
        with pytest.raises(ConfigError, match="Received: "):
            propose(path, [wrong])
    assert path.read_text() == "[gate]\n"


def test_a_broken_file_is_an_error(config, tmp_path):
    with pytest.raises(ConfigError, match=r"kws\.toml must be TOML"):
        propose(config("[gate\n"), [STOP])
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="must be UTF-8"):
        propose(path, [STOP])
    with pytest.raises(ConfigError, match=r"must be readable. Received: .*none\.toml \(No such"):
        propose(tmp_path / "none.toml", [STOP])


def test_mode_and_link_of_the_file_stay(config, tmp_path):
    path = config("[gate]\n")
    path.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    written(link, STOP)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert "0.62" in path.read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["kws.toml", "link.toml"]


def test_a_file_that_cannot_be_written_is_an_error_with_a_way_out(config, monkeypatch):
    path = config("[gate]\n")
    proposal = propose(path, [STOP])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=re.escape("(No space left on device). Copy the lines")):
        write(path, [STOP], digest=proposal.digest)
    assert path.read_text() == "[gate]\n"
    assert [one.name for one in path.parent.iterdir()] == ["kws.toml"]


@pytest.mark.parametrize(
    ("main", "drop_in", "is_decided_there"),
    [
        ("", "[gate]\nenabled = false\n", False),
        ("", "[decision.thresholds]\ngo = 0.4\n", False),
        ("", "[decision.thresholds]\nstop = 0.4\n", True),
        ("[[models]]\nname = 'commands'\n", "[[models]]\nname = 'computer'\n", True),
    ],
)
def test_what_a_drop_in_decides_is_not_written_in_vain(config, main, drop_in, is_decided_there):
    path = config(main)
    folder = path.with_name("kws.toml.d")
    folder.mkdir()
    (folder / "10-own.toml").write_text(drop_in)
    if is_decided_there:
        with pytest.raises(
            ConfigError, match=r"Received: 10-own\.toml there\. Change them in that"
        ):
            propose(path, [STOP])
    else:
        assert "stop = 0.62" in written(path, STOP)
