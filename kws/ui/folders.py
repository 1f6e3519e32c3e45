"""The folders of the page: takes, enrolled models, labels, runs of `kws new`."""

from pathlib import Path

from kws.config import Config
from kws.paths import expanded

__all__ = ["PageFolders"]


class PageFolders:
    """The folders by `[ui]` of a configuration.

    Parameters
    ----------
    config : Config
    config_path : Path
        Of kws.toml; relative folders start at its folder.
    """

    def __init__(self, config: Config, config_path: Path) -> None:
        self._base = config_path.absolute().parent
        self.root = self._folder(config.ui.folder or ".")
        self._runs = config.ui.runs

    @property
    def takes(self) -> Path:
        """Recorded takes: `word/speaker_nohash_n.wav`."""
        return self.root / "takes"

    @property
    def models(self) -> Path:
        """Enrolled models: `word.tflite`."""
        return self.root / "models"

    @property
    def runs(self) -> list[Path]:
        """Folders that hold working folders of `kws new`."""
        return [self._folder(one) for one in self._runs] or [self.root]

    def mined(self, model: str) -> Path:
        """Return the folder of `kws mine` of a model."""
        return self.root / "mined" / model.lstrip(".")

    def mined_folders(self) -> list[Path]:
        """Return those that exist."""
        try:
            return [one for one in (self.root / "mined").iterdir() if one.is_dir()]
        except OSError:
            return []

    def _folder(self, name: str) -> Path:
        return self._base / expanded(name, what="`[ui] folder`")
