import io
import json
import re
import struct
import subprocess
import tracemalloc
import zipfile

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.errors import ModelError
from kws.manifest import (
    CalibrationPoint,
    DataSource,
    DecisionDefaults,
    FeatureSettings,
    Manifest,
    StateTensor,
    pack,
    read_manifest,
    repack,
)

FLATBUFFER = b"\x1c\x00\x00\x00TFL3" + bytes(range(256)) * 8
MANIFEST = Manifest(
    name="commands",
    description="go and stop",
    licence="Apache-2.0",
    labels=("_silence_", "_unknown_", "go", "stop"),
    kind="step",
    features=FeatureSettings(kind="logmel", window="hann", low_hz=60.0, high_hz=7600.0),
    n_frames=2,
    hop_frames=2,
    states=(StateTensor(input="h_in", output="h_out", shape=(1, 4)),),
    decision=DecisionDefaults(threshold=0.6, delay_ms=200),
    calibration=(CalibrationPoint(false_alarms_per_hour=0.5, thresholds={"go": 0.7, "stop": 0.8}),),
    data=(DataSource(name="Speech Commands", licence="CC BY 4.0", clips=100),),
)
NO_MANIFEST = (
    "A model must carry its manifest kws.json inside the file, or beside it as model.kws.json. "
    "Received: {} with none that can be read: the file is cut short or not from kws. Copy it "
    "again, export it with `kws export`, or write model.kws.json."
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.tflite"


def refused(file):
    """Return the message that a model file is answered with."""
    with pytest.raises(ModelError) as caught:
        read_manifest(file)
    assert caught.value.exit_code == 4
    return str(caught.value)


def fields(**changes):
    """Return a small manifest as the JSON it is written in."""
    known = {"name": "m", "labels": ["_silence_", "stop"], "kind": "step", "features": {}}
    return json.dumps(known | {"n_frames": 2, "hop_frames": 2} | changes)


def zipped(text, **options):
    """Return a model file around any text for kws.json."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("kws.json", text, **options)
    return FLATBUFFER + archive.getvalue()


def test_what_was_packed_is_read_again(file):
    file.write_bytes(pack(FLATBUFFER, MANIFEST))
    manifest, content = read_manifest(file)
    assert manifest == MANIFEST
    assert content.startswith(FLATBUFFER)
    assert content == file.read_bytes()


def test_packing_twice_gives_the_same_bytes():
    assert pack(FLATBUFFER, MANIFEST) == pack(FLATBUFFER, MANIFEST)


def test_packing_again_replaces_the_manifest_and_nothing_else():
    other = msgspec.structs.replace(MANIFEST, description="stop and go")
    assert repack(pack(FLATBUFFER, MANIFEST), other) == pack(FLATBUFFER, other)
    assert repack(FLATBUFFER, other) == pack(FLATBUFFER, other)


def test_packing_again_keeps_the_archive_of_somebody_else(file):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("labels.txt", "go")
    foreign = FLATBUFFER + archive.getvalue()
    file.write_bytes(repack(foreign, MANIFEST))
    manifest, content = read_manifest(file)
    assert manifest == MANIFEST
    assert content.startswith(foreign)


@pytest.mark.system
def test_unzip_lists_and_prints_the_manifest(file):
    file.write_bytes(pack(FLATBUFFER, MANIFEST))
    # unzip ends with 1, a warning: bytes come before the archive.
    listed = subprocess.run(["unzip", "-l", file], check=False, capture_output=True, text=True)
    assert re.search(r"\d+ +1980-01-01 00:00 +kws\.json", listed.stdout)
    printed = subprocess.run(["unzip", "-p", file, "kws.json"], check=False, capture_output=True)
    assert msgspec.json.decode(printed.stdout, type=Manifest) == MANIFEST


def test_the_manifest_is_written_to_be_read_by_people():
    with zipfile.ZipFile(io.BytesIO(pack(FLATBUFFER, MANIFEST))) as archive:
        assert archive.read("kws.json").startswith(b'{\n "format": 1,\n "name": "commands",')


def test_a_manifest_beside_the_file_serves_as_well(file):
    file.write_bytes(FLATBUFFER)
    file.with_name("kws.json").write_text(fields(name="foreign"))
    manifest, content = read_manifest(file)
    assert manifest.name == "foreign"
    assert content == FLATBUFFER


def test_the_manifest_inside_goes_before_the_one_beside(file):
    file.write_bytes(pack(FLATBUFFER, MANIFEST))
    file.with_name("kws.json").write_text(fields(name="foreign"))
    assert read_manifest(file)[0] == MANIFEST


@pytest.mark.parametrize("name", ["model.json", "model.kws.json"])
def test_a_manifest_named_after_the_model_goes_before_the_one_inside(file, name):
    file.write_bytes(pack(FLATBUFFER, MANIFEST))
    file.with_name(name).write_text("\ufeff" + fields(name="foreign"), encoding="utf-8")
    assert read_manifest(file)[0].name == "foreign"


def test_two_models_in_a_folder_have_manifests_of_their_own(tmp_path):
    """The second ran as the first, and under its name."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.tflite").write_bytes(FLATBUFFER)
        (tmp_path / f"{name}.kws.json").write_text(fields(name=name))
    (tmp_path / "kws.json").write_text(fields(name="neighbour"))
    for name in ("one", "two"):
        assert read_manifest(tmp_path / f"{name}.tflite")[0].name == name


def test_a_manifest_beside_two_models_is_refused_with_the_remedy(file):
    file.write_bytes(FLATBUFFER)
    file.with_name("other.tflite").write_bytes(FLATBUFFER)
    file.with_name("kws.json").write_text(fields(name="foreign"))
    assert refused(file) == (
        f"A kws.json beside a model must be of the only model in its folder. Received: "
        f"{file.with_name('kws.json')} beside model.tflite and other.tflite. Rename it after its "
        f"model, such as model.kws.json."
    )


def test_the_json_of_another_tool_beside_a_model_is_left_alone(file):
    file.write_bytes(pack(FLATBUFFER, MANIFEST))
    file.with_name("model.json").write_text('{"type": "micro", "wake_word": "ok"}')
    assert read_manifest(file)[0] == MANIFEST


STATED = {
    "kind": "logmel", "window_samples": 400, "hop_samples": 160, "n_fft": 512, "window": "hann",
    "n_mels": 40, "low_hz": 20, "mel_filters": "tensorflow", "preemphasis": 0.0, "floor": 1e-12,
    "spectrum": "magnitude", "sample_scale": "unit", "log_addend": 1e-6, "periodogram": False,
    "normalization": "window_peak",
}  # fmt: skip


def test_a_foreign_window_model_states_its_features(file):
    file.write_bytes(FLATBUFFER)
    beside = file.with_name("model.kws.json")
    beside.write_text(fields(kind="window", features=STATED))
    assert read_manifest(file)[0].features.spectrum == "magnitude"
    part = {key: value for key, value in STATED.items() if key not in {"spectrum", "floor"}}
    beside.write_text(fields(kind="window", features=part))
    assert refused(file) == (
        f"A window model of another tool must state how its features are computed, since other "
        f"features give plausible nonsense. Received: {file} without floor, spectrum. State each "
        f"in `features` as the model was trained; docs/architecture.md lists them."
    )


@pytest.mark.parametrize("kind", ["mfcc", "spectrogram"])
def test_only_the_keys_that_frames_depend_on_are_asked_for(file, kind):
    file.write_bytes(FLATBUFFER)
    file.with_name("model.kws.json").write_text(fields(kind="window", features={"kind": kind}))
    asked = refused(file).partition("without ")[2].partition(". State")[0].split(", ")
    assert ("n_mfcc" in asked) == ("lifter" in asked) == (kind == "mfcc")
    assert ("n_mels" in asked) == (kind == "mfcc")
    assert {"window", "spectrum", "sample_scale", "floor", "log_addend", "normalization"} <= set(
        asked
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"normalization": "window_peak"}, "features.normalization must be of a window model"),
        (
            {"normalization": "window_peak", "preemphasis": 0.97},
            "normalization window_peak must go without preemphasis",
        ),
    ],
)
def test_normalisation_of_a_window_needs_a_window_model(file, changes, problem):
    features = {"preemphasis": 0.0} | changes
    file.write_bytes(zipped(fields(features=features).encode()))
    assert problem in refused(file)


def test_a_missing_file_is_refused(file):
    assert refused(file) == (
        f"The model must be a readable file. Received: {file} (No such file or directory). "
        f"`kws models` lists the bundled ones."
    )


def test_a_folder_is_refused(tmp_path):
    assert f"Received: {tmp_path} (Is a directory). " in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"RIFF....WAVE"])
def test_what_is_not_tflite_is_refused(content, file):
    file.write_bytes(content)
    assert refused(file) == (
        f"The model must be a whole .tflite file. Received: {file}, {len(content)} bytes without "
        f"its mark TFL3. Copy it again, or make one with `kws export`."
    )


def test_a_model_without_manifest_is_refused(file):
    file.write_bytes(FLATBUFFER)
    assert refused(file) == NO_MANIFEST.format(file)


def test_an_archive_without_the_manifest_is_refused(file):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("labels.txt", "stop")
    file.write_bytes(FLATBUFFER + archive.getvalue())
    assert refused(file) == NO_MANIFEST.format(file)


def test_a_file_cut_short_anywhere_is_refused(file):
    whole = pack(FLATBUFFER, MANIFEST)
    for length in [*range(0, 16), *range(16, len(FLATBUFFER), 97), *range(2050, len(whole))]:
        file.write_bytes(whole[:length])
        message = refused(file)
        assert message == NO_MANIFEST.format(file) or length < 8


@given(data=st.data())
def test_a_damaged_file_gives_a_manifest_or_our_error(data, tmp_path_factory):
    content = bytearray(pack(FLATBUFFER, MANIFEST))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(len(FLATBUFFER), len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "model.tflite"
    file.write_bytes(content)
    try:
        manifest, _ = read_manifest(file)
    except ModelError:
        return
    assert isinstance(manifest, Manifest)


def test_every_field_of_the_archive_may_be_damaged(file):
    whole = pack(FLATBUFFER, MANIFEST)
    n_refused = 0
    for at in range(len(FLATBUFFER), len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[at] ^= flip
            file.write_bytes(damaged)
            try:
                read_manifest(file)
            except ModelError:
                n_refused += 1
    assert n_refused > len(whole) - len(FLATBUFFER)


def test_an_encrypted_manifest_is_refused(file):
    content = bytearray(zipped(fields()))
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    content[local + 6] |= 1
    content[central + 8] |= 1
    file.write_bytes(content)
    assert refused(file) == NO_MANIFEST.format(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_manifest_compressed_in_another_way_is_refused(method, file):
    file.write_bytes(zipped(fields(), compress_type=method))
    assert refused(file) == NO_MANIFEST.format(file)


def test_a_manifest_that_is_only_stored_is_read(file):
    file.write_bytes(zipped(fields(), compress_type=zipfile.ZIP_STORED))
    assert read_manifest(file)[0].name == "m"


def test_a_manifest_beyond_a_mebibyte_is_refused(file):
    file.write_bytes(zipped(fields(description=(1 << 20) * "x")))
    assert refused(file) == (
        f"kws.json must be at most 1048576 bytes. Received: more than that inside {file}. "
        f"Export the model again."
    )


def test_an_archive_that_lies_about_its_size_is_not_unpacked(file):
    bomb = 50_000_000
    content = bytearray(zipped(bytes(bomb)))
    local, central = content.index(b"PK\x03\x04"), content.rindex(b"PK\x01\x02")
    for at in (local + 22, central + 24):
        assert content[at : at + 4] == bomb.to_bytes(4, "little")
        content[at : at + 4] = (100).to_bytes(4, "little")
    file.write_bytes(content)
    tracemalloc.start()
    tracemalloc.reset_peak()
    before_bytes, _ = tracemalloc.get_traced_memory()
    assert refused(file) == NO_MANIFEST.format(file)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes - before_bytes < 10_000_000


def test_an_entry_beyond_the_end_of_all_files_is_refused(file):
    entry = zipfile.ZipInfo("kws.json")
    entry.extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)  # ZIP64: where the entry begins
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr(entry, fields())
    content = bytearray(FLATBUFFER + archive.getvalue())
    central = content.index(b"PK\x01\x02")
    content[central + 42 : central + 46] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    assert refused(file) == NO_MANIFEST.format(file)


def test_a_manifest_beside_the_file_that_is_cut_short_is_refused(file):
    file.write_bytes(FLATBUFFER)
    text = fields()
    for length in range(len(text)):
        file.with_name("kws.json").write_text(text[:length])
        assert refused(file) == (
            f"kws.json must keep the manifest's rules. Received: Input data was truncated in "
            f"{file}. Export the model again, or mend that key."
        )


def test_a_manifest_beside_the_file_beyond_a_mebibyte_is_refused(file):
    file.write_bytes(FLATBUFFER)
    file.with_name("kws.json").write_text(fields(description=(1 << 20) * "x"))
    assert refused(file) == (
        f"kws.json must be at most 1048576 bytes. Received: more than that as "
        f"{file.with_name('kws.json')}. Export the model again."
    )


def test_a_manifest_beside_the_file_that_is_unreadable_is_refused(file, monkeypatch):
    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    file.write_bytes(FLATBUFFER)
    beside = file.with_name("kws.json")
    beside.write_text(fields())
    monkeypatch.setattr(type(beside), "read_bytes", lambda self: FLATBUFFER)
    monkeypatch.setattr(type(beside), "open", refuse)
    assert refused(file) == (
        f"The manifest beside a model must be readable. Received: {beside} (Permission denied). "
        f"Change its permissions."
    )


@pytest.mark.parametrize("text", ['{"name": "\xff"}'.encode("latin-1"), b"\x00", b"[" * 100_000])
def test_a_manifest_that_is_not_json_is_refused(text, file):
    file.write_bytes(zipped(text))
    assert refused(file).startswith("kws.json must keep the manifest's rules. Received: ")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"odd": 1}, "Object contains unknown field `odd`"),
        ({"features": {"odd": 1}}, "Object contains unknown field `odd` - at `$.features`"),
        ({"format": 2}, "Invalid enum value 2 - at `$.format`"),
        (
            {"name": "a b"},
            r"Expected `str` matching regex '^[A-Za-z0-9_.-]{1,64}\\Z' - at `$.name`",
        ),
        (
            {"name": "a\n"},
            r"Expected `str` matching regex '^[A-Za-z0-9_.-]{1,64}\\Z' - at `$.name`",
        ),
        ({"labels": []}, "labels must be present and differ from one another"),
        ({"labels": ["go", "go"]}, "labels must be present and differ from one another"),
        ({"labels": ["go", ""]}, "labels must be printable text"),
        ({"labels": ["go", "\x1b[2J"]}, "labels must be printable text"),
        ({"labels": ["_silence_"]}, "labels must hold at least one keyword"),
        ({"hop_frames": 1}, "a step model must have hop_frames equal to n_frames"),
        ({"kind": "window", "hop_frames": 3}, "hop_frames must be <= n_frames"),
        (
            {"calibration": [{"false_alarms_per_hour": 1, "thresholds": {"go": 0.5}}]},
            "calibration must name only keywords of the model",
        ),
        (
            {"calibration": [{"false_alarms_per_hour": 1, "thresholds": {"_silence_": 0.5}}]},
            "calibration must name only keywords of the model",
        ),
        (
            {"features": {"window_samples": 600}},
            "n_fft must be >= window_samples; received 512 - at `$.features`",
        ),
        (
            {"features": {"hop_samples": 401}},
            "hop_samples must be <= window_samples; received 401 - at `$.features`",
        ),
        (
            {"features": {"n_mfcc": 27}},
            "n_mfcc must be <= n_mels; received 27 - at `$.features`",
        ),
        (
            {"features": {"high_hz": 8000.5}},
            "high_hz must be > low_hz and <= sample_rate_hz / 2; received 8000.5 - at `$.features`",
        ),
        (
            {"features": {"taper_samples": 401}},
            "taper_samples must be <= window_samples; received 401 - at `$.features`",
        ),
        (
            {"features": {"low_hz": 60, "high_hz": 60}},
            "high_hz must be > low_hz and <= sample_rate_hz / 2; received 60 - at `$.features`",
        ),
        (
            {"features": {"low_hz": 9000}},
            "high_hz must be > low_hz and <= sample_rate_hz / 2; received 8000 - at `$.features`",
        ),
        (
            {"decision": {"threshold": 1.5}},
            "Expected `float` <= 1.0 - at `$.decision.threshold`",
        ),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(changes, problem, file):
    file.write_bytes(zipped(fields(**changes)))
    assert refused(file) == (
        f"kws.json must keep the manifest's rules. Received: {problem} in {file}. "
        f"Export the model again, or mend that key."
    )


def test_rules_hold_on_construction_too():
    with pytest.raises(ValueError, match=r"^labels must be printable text$"):
        msgspec.structs.replace(MANIFEST, labels=("go\n", "stop"))


def test_a_window_may_overlap_the_next(file):
    file.write_bytes(zipped(fields(kind="window", n_frames=98, hop_frames=8)))
    assert read_manifest(file)[0].hop_frames == 8


def test_keywords_are_the_labels_without_underscores():
    assert MANIFEST.keywords == ("go", "stop")


@pytest.mark.parametrize(("kind", "n"), [("mfcc", 13), ("logmel", 26), ("spectrogram", 257)])
def test_a_frame_has_as_many_values_as_its_kind_says(kind, n):
    assert FeatureSettings(kind=kind).n_features == n


def test_more_cepstra_than_filters_matter_to_mfcc_alone():
    assert FeatureSettings(kind="logmel", n_mels=10).n_features == 10


def test_names_are_in_one_form_of_unicode():
    decomposed, composed = "gru\u0308n", "gr\u00fcn"
    manifest = Manifest(
        name="colours",
        labels=("_silence_", decomposed),
        kind="step",
        features=FeatureSettings(),
        n_frames=1,
        hop_frames=1,
        calibration=(CalibrationPoint(false_alarms_per_hour=1, thresholds={decomposed: 0.5}),),
        decision=DecisionDefaults(phrases=(f"{decomposed} {composed}",)),
    )
    assert manifest.keywords == (composed,)
    assert manifest.calibration[0].thresholds == {composed: 0.5}
    assert manifest.decision.phrases == (f"{composed} {composed}",)


def test_labels_that_differ_in_their_form_of_unicode_alone_are_one():
    with pytest.raises(ValueError, match=r"^labels must be present and differ from one another$"):
        Manifest(
            name="colours",
            labels=("gru\u0308n", "gr\u00fcn"),
            kind="step",
            features=FeatureSettings(),
            n_frames=1,
            hop_frames=1,
        )
