import json
from pathlib import Path

import pytest

from kws.errors import ModelError
from kws_export.tensor_arena import tensor_arena_bytes


@pytest.mark.parametrize("word", ["alexa", "hey_jarvis", "hey_mycroft", "okay_nabu"])
def test_the_estimate_holds_for_published_models_without_waste(word):
    folder = Path(pytest.importorskip("pymicro_wakeword").__file__).parent / "models"
    stated = json.loads((folder / f"{word}.json").read_text(encoding="utf-8"))
    known = stated["micro"]["tensor_arena_size"]
    assert known <= tensor_arena_bytes((folder / f"{word}.tflite").read_bytes()) < 1.7 * known


def test_a_damaged_file_is_refused():
    with pytest.raises(ModelError, match="must be a whole flatbuffer"):
        tensor_arena_bytes(b"TFL3" * 10)
