"""Thresholds: what the model's calibration and the clips of this room say of them; the change."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kws.manifest import CalibrationBasis, CalibrationPoint
from kws.model import model_path
from kws.model_file import read_model
from kws.ui.clips import ClipInfo, ClipLibrary
from kws.ui.config_file import Proposal, ThresholdChange, propose, write
from kws.ui.folders import PageFolders
from kws.ui.host import Host, HostLoop, PageState
from kws.ui.labelling import labels_by_clip
from kws.ui.requests import body_of, json_answer, query_of

__all__ = ["tuning_routes"]


class _Days(msgspec.Struct, frozen=True):
    days: float = 7.0


class _ModelCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """The calibration table of a model, as in its manifest."""

    name: str
    points: tuple[CalibrationPoint, ...]
    basis: CalibrationBasis | None


class _RoomClip(msgspec.Struct, frozen=True, kw_only=True):
    """As much of a clip as tells what a threshold would have made of it."""

    model: str
    keyword: str
    kind: str
    score: float
    label: str | None


class _Room(msgspec.Struct, frozen=True, kw_only=True):
    """The clips of the last days.

    Attributes
    ----------
    folder : str or None
        Of the clips; None while nothing is recorded.
    hours : float
        From the first of these clips until now; 0 without any.
    min_score : float or None
        Near misses below it are not recorded.
    clips : list of _RoomClip
    """

    folder: str | None
    hours: float
    min_score: float | None
    clips: list[_RoomClip]


class _Tuning(msgspec.Struct, frozen=True, kw_only=True):
    models: list[_ModelCalibration]
    room: _Room


class _Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    changes: list[ThresholdChange]
    digest: str = ""


def tuning_routes(host: Host, loop: HostLoop, clips: ClipLibrary) -> list[BaseRoute]:
    """Return the routes of the view."""

    async def tuning(request: Request) -> Response:
        days = query_of(request, _Days).days
        config = await loop.run(host.page_config)
        state = await loop.run(host.page_state)

        def work() -> _Tuning:
            labels = labels_by_clip(PageFolders(config, host.config_path))
            return _Tuning(
                models=[_calibration(one.name) for one in config.every_model],
                room=_room(state, clips, labels, days=min(max(days, 0.01), 3650.0)),
            )

        return await json_answer(work)

    async def proposal(request: Request) -> Response:
        changes = (await body_of(request, _Changes)).changes

        def work() -> Proposal:
            return propose(host.config_path, changes)

        return await json_answer(work)

    async def apply(request: Request) -> Response:
        wanted = await body_of(request, _Changes)

        def work() -> dict[str, str]:
            write(host.config_path, wanted.changes, digest=wanted.digest)
            return {"written": str(host.config_path)}

        answer = await json_answer(work)
        await loop.run(host.request_reload)
        return answer

    return [
        Route("/api/tuning", tuning),
        Route("/api/tuning/proposal", proposal, methods=["POST"]),
        Route("/api/tuning/write", apply, methods=["POST"]),
    ]


def _calibration(name: str) -> _ModelCalibration:
    manifest, _ = read_model(model_path(name))
    return _ModelCalibration(
        name=manifest.name, points=manifest.calibration, basis=manifest.calibrated_on
    )


def _room(
    state: PageState, clips: ClipLibrary, labels: Mapping[tuple[str, str], str], *, days: float
) -> _Room:
    since = datetime.now(UTC) - timedelta(days=days)
    found = clips.list(Path(state.recording) if state.recording else None)
    recent = [(one, at) for one in found if (at := _time(one)) and at >= since]
    hours = 0.0
    if recent:
        first = min(at for _, at in recent)
        hours = (datetime.now(UTC) - first).total_seconds() / 3600
    return _Room(
        folder=state.recording,
        hours=round(max(0.0, hours), 2),
        min_score=state.min_score,
        clips=[
            _RoomClip(
                model=one.model,
                keyword=one.keyword,
                kind=one.kind,
                score=one.score,
                label=labels.get((one.id, one.keyword)),
            )
            for one, _ in recent
        ],
    )


def _time(clip: ClipInfo) -> datetime | None:
    try:
        return datetime.fromisoformat(clip.time.replace("Z", "+00:00"))
    except ValueError:
        return None
