from kws_train.data.speakers import (
    TESTING,
    TRAINING,
    files_of_quarters,
    files_of_readers,
    quarters_of_speakers,
)


def placed(folder, *names):
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return paths


def test_of_every_four_speakers_two_train_and_the_fourth_tests(tmp_path):
    paths = placed(tmp_path, *(f"{name}/{n}.opus" for name in "fbacde" for n in (1, 0)))
    assert quarters_of_speakers(paths, tmp_path) == dict(
        zip("abcdef", (0, 1, 2, 3, 0, 1), strict=True)
    )
    assert list(files_of_quarters(tmp_path, TRAINING)) == ["a", "b", "e", "f"]
    assert files_of_quarters(tmp_path, TESTING) == {
        "d": [tmp_path / "d" / "0.opus", tmp_path / "d" / "1.opus"]
    }


def test_files_beside_one_another_are_speakers(tmp_path):
    placed(tmp_path, *(f"{n}.opus" for n in range(4)))
    assert files_of_quarters(tmp_path, TESTING) == {"3.opus": [tmp_path / "3.opus"]}


def test_readers_are_told_by_the_names_of_utterances(tmp_path):
    placed(tmp_path, "84/1/84-1-0000.opus", "84/1/84-1-0001.opus", "85/1/85-1-0000.opus")
    found = files_of_readers(tmp_path, {"84"})
    assert {speaker: [path.name for path in paths] for speaker, paths in found.items()} == {
        "84": ["84-1-0000.opus", "84-1-0001.opus"]
    }
