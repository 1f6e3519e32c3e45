"""What a training came to is drawn into its run folder."""

import pytest

from kws.manifest import FeatureSettings

pytestmark = pytest.mark.slow  # for the import of TensorFlow


def test_learning_and_validation_confusion_are_drawn(tmp_path, tiny_network, make_tone):
    from kws_train.evaluate.training_plots import draw_training
    from kws_train.recipe import CrnnRecipe, DataRecipe, Recipe, WordCorpus

    for i in range(30):
        make_tone(tmp_path / "data" / "words" / "yes" / f"{i:08x}_nohash_0.wav", hz=300)
    features = {"kind": "logmel", "n_mels": 8, "window": "hann", "floor": 1.0}
    recipe = Recipe(
        name="tiny",
        data=DataRecipe(keywords=["yes", "no"], words=[WordCorpus(path="words")]),
        features=FeatureSettings(**features),
        model=CrnnRecipe(channels=(4, 6, 8), n_blocks=1, kernel_frames=3, gru_units=8),
    )
    (tmp_path / "history.csv").write_text("epoch,loss,val_loss\n0,2.0,2.1\n")
    pictures = draw_training(tmp_path, tiny_network, recipe, data=tmp_path / "data")
    assert [picture.name for picture in pictures] == ["learning.png", "confusion.png"]
    assert all(picture.read_bytes()[:4] == b"\x89PNG" for picture in pictures)
