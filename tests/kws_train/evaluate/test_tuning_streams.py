import numpy as np
import pytest

from kws_train.data.splits import is_validation, official_split
from kws_train.evaluate.tuning_streams import tuning_streams
from kws_train.recipe import DataRecipe, SpeechCorpus, WordCorpus


@pytest.fixture
def corpora(tmp_path, make_tone):
    """Words of all splits, and two speakers with utterances of all kinds."""
    for i in range(40):
        make_tone(tmp_path / "words" / "go" / f"{i:08x}_nohash_0.wav", hz=300)
    lines = []
    for speaker in (1, 2):
        chapter = tmp_path / "speech" / str(speaker) / "1"
        names = [f"{speaker}-1-{i:04d}" for i in range(30)]
        for name in names:
            make_tone(chapter / f"{name}.wav", hz=5000)
        said = [f"{name} {'GO AWAY' if i == 29 else 'NOBODY CAME'}" for i, name in enumerate(names)]
        (chapter / f"{speaker}-1.trans.txt").write_text("\n".join(said))
        lines += [
            f'{{"utterance":"{name}","speaker":"{speaker}","words":[]}}' for name in names[:-5]
        ]
    (tmp_path / "alignment.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_tuning_streams_use_what_training_leaves_out_and_evaluation_does_not_need(corpora):
    recipe = DataRecipe(
        keywords=["go"],
        words=[WordCorpus(path="words"), WordCorpus(path="absent", split="train")],
        speech=[SpeechCorpus(path="speech", alignment="alignment.jsonl")],
    )
    clean, again = tuning_streams(recipe, corpora, snr_db=(np.inf, 10.0))
    assert {official_split(clip) for clip in clean.clips} == {"validation"}
    names = {one.path.stem for one in clean.background}
    assert {name[0] for name in names} == {"1"}  # the first half of the speakers
    # Left out by its hash, or never aligned; `1-1-0029` has a keyword in its transcript.
    assert all(is_validation(name) or name >= "1-1-0025" for name in names)
    assert "1-1-0029" not in names
    assert clean.name == again.name == "clean"  # the recipe has no noise


def test_tuning_streams_use_all_speech_and_draw_other_noise_for_a_repeated_ratio(
    corpora, make_tone
):
    for hz in (700, 900):
        make_tone(corpora / "noise" / f"{hz}.wav", hz=hz)
    recipe = DataRecipe(
        keywords=["go"],
        words=[WordCorpus(path="words/go", split="validation")],
        speech=[SpeechCorpus(path="speech")],
        noise=["noise"],
    )
    for clip in sorted((corpora / "words" / "go").iterdir())[2:]:
        clip.unlink()
    clean, first, second = tuning_streams(
        recipe, corpora, snr_db=(np.inf, 10.0, 10.0), snr_rule="peak"
    )
    assert (clean.name, first.name, second.name) == ("clean", "10 dB", "10 dB")
    names = [f"1-1-{i:04d}" for i in range(29)]  # the last one has a keyword
    assert {one.path.stem for one in clean.background} == set(filter(is_validation, names))
    assert not np.array_equal(first.samples, second.samples)
    assert np.array_equal(
        first.samples, tuning_streams(recipe, corpora, snr_db=(10.0,), snr_rule="peak")[0].samples
    )


def test_tuning_streams_use_the_third_of_every_four_speakers(corpora, make_tone):
    lines = []
    for speaker in "abcdefgh":
        for said in ("GO", "AWAY"):
            make_tone(corpora / "recognized" / speaker / f"{said}.wav", hz=5000)
            words = f'[["{said}",0.1,0.2]]'
            name = f"{speaker}/{said}"
            lines.append(f'{{"utterance":"{name}","speaker":"{speaker}","words":{words}}}\n')
    (corpora / "recognized.jsonl").write_text("".join(lines))
    for alignment, said in (("recognized.jsonl", {"AWAY"}), (None, {"GO", "AWAY"})):
        quarters = SpeechCorpus(path="recognized", alignment=alignment, speakers="quarters")
        absent = [
            SpeechCorpus(path="absent", speakers=speakers, alignment="absent.jsonl", optional=True)
            for speakers in ("first", "quarters")
        ]
        recipe = DataRecipe(
            keywords=["go"], words=[WordCorpus(path="words")], speech=[quarters, *absent]
        )
        (clean,) = tuning_streams(recipe, corpora, snr_db=(np.inf,))
        assert {one.path.parent.name for one in clean.background} == {"c", "g"}
        assert {one.path.stem for one in clean.background} == said
