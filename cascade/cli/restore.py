"""`cascade restore`."""

from __future__ import annotations

from cascade.cli import bulk, restoring, upscale


@restoring.with_shared_options
def restore(
    shared: restoring.Shared,
    model: restoring.Model,
    tile: upscale.Tile = None,
    augmentation: upscale.Augmentation = None,
    axis: upscale.Axis = None,
    nodata: upscale.Nodata = None,
) -> None:
    """Make the other image of a pair, of the same size: for stages that you trained on pairs.

    Damaged to clean, one band to another, grey to colour: whatever the pairs showed. A stage whose
    results are larger than its inputs runs in `cascade upscale`.

    Run the same command again to continue where it stopped. Pictures that fail are named with the
    reason and do not stop the others; the exit code is then 1.

    Example: cascade restore scans -o restored --model runs/restore-pairs --compare
    """
    from cascade.bulk.restoring import prepare_restoring
    from cascade.restoration.restoring import Restoration

    settings = {"augmentation_level": augmentation}
    request = shared.request(model, settings, axis=axis, nodata=nodata)
    restoration = Restoration(seed=shared.seed, tile_px=tile)
    bulk.work_through(
        lambda on_progress: prepare_restoring(request, restoration, on_progress=on_progress),
        shared.workers,
    )
