"""The state of the daemon as pages show it."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from kws.daemon.listeners import Listener, SourceListeners
from kws.daemon.loaded_config import LoadedConfig
from kws.paths import expanded

if TYPE_CHECKING:
    from kws.ui.host import PageModel, PageSource, PageState

__all__ = ["page_state"]


def page_state(
    loaded: LoadedConfig, sources: Sequence[SourceListeners], *, path: Path
) -> "PageState":
    """Return the state of a daemon for the page.

    Parameters
    ----------
    loaded : LoadedConfig
        In effect.
    sources : sequence of SourceListeners
    path : Path
        Of kws.toml.
    """
    from kws.ui.host import PageState

    recording = loaded.config.recording
    folder = recording.folder and expanded(recording.folder, what="`[recording] folder`")
    return PageState(
        version=version("kws"),
        config=str(path.absolute()),
        sources=[_source(one) for one in sources],
        models=[_model(one) for one in next(iter(loaded.listeners.values()))],
        recording=str(folder.absolute()) if folder else None,
        min_score=recording.min_score,
    )


def _source(source: SourceListeners) -> "PageSource":
    from kws.ui.host import PageSource

    supervisor = source.supervisor
    return PageSource(
        name=supervisor.label,
        description=supervisor.name,
        state=supervisor.state,
        last_error=supervisor.last_error,
    )


def _model(listener: Listener) -> "PageModel":
    from kws.ui.host import PageModel

    (manifest,) = listener.spotter.manifests
    return PageModel(
        name=manifest.name,
        keywords=list(manifest.keywords),
        thresholds=listener.spotter.thresholds,
        kind=manifest.decision.kind,
    )
