"""A head with its speech embedding in one file, for any version of kws.

The flatbuffer stays the head's, and the embedding's own file goes into the archive beside the
manifest: both stay what an interpreter runs, the events are the same to the bit, and several heads
still share one embedding.
"""

from pathlib import Path

from kws.errors import ConfigError
from kws.manifest import repack
from kws.model import open_embedding, open_model
from kws_train.atomic import replacing

__all__ = ["export_whole"]


def export_whole(head: Path, out: Path) -> int:
    """Write a head with the embedding that it takes; return the size of the file in bytes.

    Parameters
    ----------
    head : Path
        A model file that is a head.
    out : Path
        The .tflite to write.

    Raises
    ------
    ConfigError
        If it is not a head.
    ModelError
        If it cannot be run, or kws does not have the embedding that it names.
    """
    model = open_model(head)
    if model.manifest.takes is None:
        raise ConfigError(
            f"`--whole` is for heads, which `kws new` and `kws enroll` make. Received: {head}, "
            f"which needs no embedding. Leave `--whole` away."
        )
    inside = open_embedding(model)
    whole = repack(model.content, model.manifest, embedding=inside.content)
    with replacing(out) as begun:
        begun.write_bytes(whole)
    return len(whole)
