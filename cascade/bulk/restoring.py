"""Turns a user's request to restore many pictures into jobs and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cascade.bulk.editing import Repainting, edits
from cascade.bulk.method import Method, PartProgress
from cascade.bulk.preparing import OnProgress, Preparation
from cascade.bulk.request import Request
from cascade.bulk.restored_files import RestoredFiles
from cascade.bulk.work import Bulk
from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.restoration.editing import Editing
from cascade.restoration.restoring import Restoration, restore_picture, restorer_of

GROW_PX = 2


@dataclass(frozen=True, kw_only=True)
class Mending:
    """How a model that was not trained on pairs mends the parts that a mask names.

    Attributes:
        mask: file of a mask, white where it is damaged; None for the transparent pixels.
        grow_px: pixels by which the mask grows; None for 2.
        window_px: longer side of the part around the mask that the model sees; None for a default.
    """

    mask: Path | None = None
    grow_px: int | None = None
    window_px: int | None = None

    def repainting(self, seed: int) -> Repainting:
        """The same as an edit without words."""
        grow_px = GROW_PX if self.grow_px is None else self.grow_px
        editing = Editing(grow_px=grow_px, stays_grey=True, window_px=self.window_px)
        return Repainting(command="restore", editing=editing, mask=self.mask, seed=seed)


def prepare_restoring(
    request: Request,
    restoration: Restoration,
    mending: Mending,
    *,
    on_progress: OnProgress | None = None,
) -> Bulk:
    """Prepare the restoration of pictures; results are written by `Bulk.run`.

    Args:
        request: the pictures and the place of the results.
        restoration: how a model that was trained on pairs restores each picture.
        mending: how any other model mends the parts that a mask names.
        on_progress: called with every change.

    Raises:
        CascadeError: if inputs, settings, model and folder do not fit together.
    """
    plan = Preparation("restore", request, restoration.seed, mending.mask)
    of_masks = {"mask": mending.mask, "grow": mending.grow_px, "window": mending.window_px}
    if not plan.model.is_of_pairs:
        of_pairs = {"tile": restoration.tile_px, "axis": request.axis, "nodata": request.nodata}
        _refuse(of_pairs, f"{request.model} repairs the masked area")
        return edits(plan, mending.repainting(restoration.seed), on_progress=on_progress)
    _refuse(of_masks, f"{request.model} restores whole images, as it learned from pairs")
    stages = plan.load_stages(lambda stages: [restorer_of(stages)])
    restorer = restorer_of(list(stages.values()))
    expected = plan.expected_error([restorer], restoration)
    files = RestoredFiles(
        stage=restorer, restoration=restoration, request=request, expected=expected
    )

    def make(
        pictures: Sequence[Picture], seeds: Sequence[int], progress: PartProgress
    ) -> list[Picture]:
        return [
            restore_picture([restorer], picture, replace(restoration, seed=seed), progress=progress)
            for picture, seed in zip(pictures, seeds, strict=True)
        ]

    method = Method(
        command=plan.command,
        description="restored",
        make=make,
        settings={
            **plan.settings(stages, [restorer]),
            "tile_px": restoration.tile_px,
            **({} if request.axis is None else {"axis": request.axis}),
            **({} if request.nodata is None else {"nodata": request.nodata}),
        },
        work=math.prod,
        metadata=request.metadata,
        signer=request.signer,
        overwrite=request.overwrite,
        truncated=request.truncated,
        before="same",
        make_file=files.make if plan.has_bands else None,
        check_file=files.check if plan.has_bands else None,
        layout=files.layout,
        expected=expected,
    )
    return plan.bulk(method, on_progress)


def _refuse(options: Mapping[str, object], what: str) -> None:
    """Refuse options that a model does not read.

    Raises:
        ContractError: naming them.
    """
    names = [name for name, value in options.items() if value is not None]
    if names:
        raise ContractError(f"{what}; leave out {' and '.join(names)}.")
