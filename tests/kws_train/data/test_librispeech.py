from kws_train.data.librispeech import quiet_utterances, speaker_halves, transcripts_below


def add_utterance(corpus, utterance, text="SO IT IS"):
    speaker, chapter, _ = utterance.split("-")
    folder = corpus / "dev-clean" / speaker / chapter
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{utterance}.flac").touch()
    with (folder / f"{speaker}-{chapter}.trans.txt").open("a", encoding="utf-8") as lines:
        lines.write(f"{utterance} {text}\n")


def list_speakers(corpus, *speakers, folder="."):
    lines = ["; a comment", *(f"{name} | F | dev-clean | 8.02 | Somebody" for name in speakers)]
    path = corpus / folder / "SPEAKERS.TXT"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def test_halves_follow_the_list_of_those_present(tmp_path):
    for speaker in ("9", "84", "1272", "30"):
        add_utterance(tmp_path, f"{speaker}-1-0000")
    list_speakers(tmp_path, "84", "77", "1272", "9", "30")

    assert speaker_halves(tmp_path) == ({"84", "1272"}, {"9", "30"})


def test_of_an_odd_number_the_second_half_has_one_more(tmp_path):
    for speaker in ("1", "2", "3"):
        add_utterance(tmp_path, f"{speaker}-1-0000")
    list_speakers(tmp_path, "1", "2", "3")

    assert speaker_halves(tmp_path) == ({"1"}, {"2", "3"})


def test_a_speaker_who_is_listed_twice_is_in_one_half(tmp_path):
    for speaker in ("1", "2", "3", "4"):
        add_utterance(tmp_path, f"{speaker}-1-0000")
    list_speakers(tmp_path, "1", "2", "3", "4")
    list_speakers(tmp_path, "4", "3", "2", "1", folder="dev-clean")

    first, second = speaker_halves(tmp_path)
    assert (first, second) == ({"1", "2"}, {"3", "4"})


def test_speakers_on_no_list_come_after_those_listed(tmp_path):
    for speaker in ("1", "2", "3", "4"):
        add_utterance(tmp_path, f"{speaker}-1-0000")
    list_speakers(tmp_path, "4", "2")

    assert speaker_halves(tmp_path) == ({"4", "2"}, {"1", "3"})


def test_blank_lines_of_transcripts_are_skipped(tmp_path):
    add_utterance(tmp_path, "1-1-0000", text="SO\n\n1-1-0001")
    found = [(name, text) for _, name, text in transcripts_below(tmp_path)]
    assert found == [("1-1-0000", "SO"), ("1-1-0001", "")]


def test_utterances_with_a_phrase_are_left_out_and_words_that_contain_it_are_not(tmp_path):
    for i, text in enumerate(["GO THERE", "HEY COMPUTER", "A GOAT", "COMPUTER HEY"]):
        add_utterance(tmp_path, f"1-1-000{i}", text=text)
    add_utterance(tmp_path, "2-1-0000")
    without = ["go", "hey_computer"]
    names = [path.name for path in quiet_utterances(tmp_path, without=without)]
    assert names == ["1-1-0002.flac", "1-1-0003.flac", "2-1-0000.flac"]
    found = quiet_utterances(tmp_path, without=without, speakers={"2"})
    assert [path.name for path in found] == ["2-1-0000.flac"]
