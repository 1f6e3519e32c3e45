"""Recorded clips to listen to and label; the labels go into a folder of `kws mine` per model."""

import io
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.clip_sidecar import read_sidecar
from kws.config import Config
from kws.errors import ConfigError, FormatError
from kws.manifest import UNKNOWN, Manifest
from kws.mined.folder import UNSURE, MinedFolder
from kws.mined.recorded import label_recorded_clip
from kws.model import model_path
from kws.model_file import read_model
from kws.threads import in_thread
from kws.ui.clips import ClipInfo, ClipLibrary
from kws.ui.folders import PageFolders
from kws.ui.host import Host, HostLoop
from kws.ui.requests import body_of, json_answer, query_of

__all__ = ["labelling_routes", "labels_by_clip"]

_MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac"}
_MAX_LISTED = 200


class _Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What is listed; empty: all. Days are those of the clips' times, in UTC."""

    day: str = ""
    source: str = ""
    kind: str = ""
    keyword: str = ""
    label: str = ""
    least: float = 0.0
    most: float = 1.0


class _LabelledClip(msgspec.Struct, frozen=True, kw_only=True):
    clip: ClipInfo
    label: str | None
    choices: list[str]


class _Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Clips by a filter, and what can be filtered by.

    Attributes
    ----------
    folder : str or None
        Of the clips; None while nothing is recorded.
    mined : str
        Where the labels go.
    n : int
        Clips in the folder.
    n_found : int
        By the filter; the newest 200 are listed.
    days, sources, keywords : list of str
    clips : list of _LabelledClip
    """

    folder: str | None
    mined: str
    n: int
    n_found: int
    days: list[str]
    sources: list[str]
    keywords: list[str]
    clips: list[_LabelledClip]


class _Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    clip: str
    label: str | None


def labels_by_clip(folders: PageFolders) -> dict[tuple[str, str], str]:
    """Return the label of each labelled word, by its clip and keyword."""
    found: dict[tuple[str, str], str] = {}
    for path in folders.mined_folders():
        found |= MinedFolder(path).labels_of_recordings()
    return found


def labelling_routes(host: Host, loop: HostLoop, library: ClipLibrary) -> list[BaseRoute]:
    """Return the routes of the view."""

    async def folder_of_clips() -> Path | None:
        recording = (await loop.run(host.page_state)).recording
        return Path(recording) if recording else None

    async def clips(request: Request) -> Response:
        wanted = query_of(request, _Filter)
        folder = await folder_of_clips()
        config = await loop.run(host.page_config)
        folders = PageFolders(config, host.config_path)
        return await json_answer(lambda: _listing(library, folder, config, folders, wanted))

    async def audio(request: Request) -> Response:
        folder = await folder_of_clips()
        clip_id, ending = request.path_params["id"], request.path_params["ending"]
        content = await in_thread(lambda: library.read(folder, clip_id, ending=ending))
        return Response(content, media_type=_MEDIA_TYPES.get(ending, "application/json"))

    async def label(request: Request) -> Response:
        wanted = await body_of(request, _Label)
        folder = await folder_of_clips()
        config = await loop.run(host.page_config)
        folders = PageFolders(config, host.config_path)
        return await json_answer(lambda: _label(library, folder, config, folders, wanted))

    return [
        Route("/api/clips", clips),
        Route("/api/clips/{id}.{ending}", audio),
        Route("/api/labels", label, methods=["POST"]),
    ]


def _listing(
    library: ClipLibrary,
    folder: Path | None,
    config: Config,
    folders: PageFolders,
    wanted: _Filter,
) -> _Listing:
    every = library.list(folder)
    labels = labels_by_clip(folders)
    choices = {one.name: list(one.keywords) for one in _manifests(config)}
    found = [one for one in every if _matches(one, labels.get((one.id, one.keyword)), wanted)]
    return _Listing(
        folder=str(folder) if folder else None,
        mined=str(folders.root / "mined"),
        n=len(every),
        n_found=len(found),
        days=sorted({one.time[:10] for one in every}, reverse=True),
        sources=sorted({one.source for one in every}),
        keywords=sorted({one.keyword for one in every}),
        clips=[
            _LabelledClip(
                clip=one,
                label=labels.get((one.id, one.keyword)),
                choices=choices.get(one.model, [one.keyword]),
            )
            for one in found[:_MAX_LISTED]
        ],
    )


def _matches(clip: ClipInfo, label: str | None, wanted: _Filter) -> bool:
    exact = ((wanted.source, clip.source), (wanted.kind, clip.kind), (wanted.keyword, clip.keyword))
    is_labelled = {"": True, "none": label is None, "any": label is not None}
    return (
        all(one in ("", value) for one, value in exact)
        and clip.time.startswith(wanted.day)
        and wanted.least <= clip.score <= wanted.most
        and is_labelled.get(wanted.label, label == wanted.label)
    )


def _label(
    library: ClipLibrary,
    folder: Path | None,
    config: Config,
    folders: PageFolders,
    wanted: _Label,
) -> dict[str, str | None]:
    clip = library.find(folder, wanted.clip)
    content = library.read(folder, clip.id, ending=clip.format)
    about = read_sidecar(library.read(folder, clip.id, ending="json"))
    manifest = next((one for one in _manifests(config) if one.name == clip.model), None)
    if manifest is None:
        raise ConfigError(
            f"A clip to label must be of a model in kws.toml. Received: one of `{clip.model}`. Add "
            f"that model, or label with `kws mine`."
        )
    if wanted.label not in {None, UNKNOWN, UNSURE, *manifest.keywords}:
        raise ConfigError(
            f"A label must be a keyword of the model. Received: {wanted.label!r:.80}. It knows: "
            f"{', '.join(manifest.keywords)}."
        )
    label_recorded_clip(
        MinedFolder(folders.mined(manifest.name)),
        (folder or Path()) / f"{clip.id}.{clip.format}",
        content,
        _samples(content, clip.id),
        about,
        label=wanted.label,
        manifest=manifest,
    )
    return {"label": wanted.label}


def _manifests(config: Config) -> list[Manifest]:
    return [read_model(model_path(one.name))[0] for one in config.every_model]


def _samples(content: bytes, name: str) -> Samples:
    import soundfile  # the extra has it

    try:
        samples, rate_hz = soundfile.read(io.BytesIO(content), dtype="int16", always_2d=True)
    except soundfile.SoundFileError as error:
        raise FormatError(
            f"A clip must be audio. Received: {name} ({error}). Remove it from its folder."
        ) from error
    if rate_hz != SAMPLE_RATE_HZ:
        raise FormatError(
            f"A clip must be at {SAMPLE_RATE_HZ} Hz, as the daemon records it. Received: {name} at "
            f"{rate_hz} Hz. Remove it from its folder."
        )
    mono: Samples = samples[:, 0]
    return mono
