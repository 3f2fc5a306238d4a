"""The space of a recipe's stage, and how its image files are read: as colours or as bands."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.paired_image import PairedImage
from cascade.data.band_decoding import BandDecoding
from cascade.data.fitting import KnownCheck
from cascade.data.joining import Pairing
from cascade.data.measured_range import measured_ranges
from cascade.data.pair_report import PairCheck
from cascade.data.pairs import partner_decoding
from cascade.data.preparation import Decoding
from cascade.data.source import ImageSource
from cascade.data.tensors import TensorSource
from cascade.errors import RecipeError
from cascade.imaging.rasters.layout import Layout
from cascade.recipe.faults import fault_in
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.saving.stage_folder import read_contract, stage_in
from cascade.space import COLOUR_RANGE, Space
from cascade.training.checkpoint import checkpoints
from cascade.training.processes import is_main_process

UNMEASURED = (0.0, 65535.0)  # stands for a range that is measured when training begins
MOST_LEVEL = 65535  # of a colour picture
logger = logging.getLogger(__name__)


def space_of(recipe: StageRecipe) -> Space:
    """The space of a recipe's stage. Bands may have their range from the section of the data.

    Raises:
        CascadeError: if the space does not fit, or the range is stated twice.
    """
    values, data = recipe.space.model_dump(), recipe.data
    with fault_in("space", tuple(values)):
        space = Space(**values)
    if data.percentiles is None and (data.range is None or _is_of_colours(recipe, space)):
        return space
    key = "data.range" if data.percentiles is None else "data.percentiles"
    stated = UNMEASURED if data.range is None else data.range
    with fault_in("data", ("range",)):
        other = Space(**{**values, "range": stated})
    if space.range not in (COLOUR_RANGE, other.range) or None not in (data.range, data.percentiles):
        both = "space.range" if data.range is None or data.percentiles is None else "data.range"
        how = "" if data.percentiles is None else ", as data.percentiles=null does"
        with fault_in("space.range" if data.range is None else "data.range"):
            raise RecipeError(
                f"{key} and {both} both state the range of the bands; leave one out{how}."
            )
    return other


def pictures_space(recipe: StageRecipe) -> Space:
    """The space of the pictures that a stage trains on, as far as it is known without weights."""
    if recipe.data.encoder is not None:
        folder = stage_in(Path(recipe.data.encoder))
        if folder is not None:
            return read_contract(folder).space
    return space_of(recipe)


def _is_of_colours(recipe: StageRecipe, space: Space) -> bool:
    """Whether a range is one of colour pictures, which become 0 to 255."""
    range = recipe.data.range
    return not space.has_bands and (range is None or not isinstance(range, list))


def opening_of(recipe: StageRecipe) -> dict[str, Any]:
    """The arguments of `open_source` for a recipe."""
    values = recipe.data.model_dump(include={"path", "only", "name_pattern", "cache_dir"})
    layout = _layout(pictures_space(recipe), recipe)
    if recipe.data.pairs is None:
        return {**values, "layout": layout}
    pairing = Pairing(recipe.data.pairs, _layout(inputs_space(recipe), recipe))
    return {**values, "layout": layout, "pairing": pairing}


def _layout(space: Space, recipe: StageRecipe) -> Layout | None:
    return Layout(space.channels, recipe.data.axis) if space.has_bands else None


def inputs_space(recipe: StageRecipe) -> Space:
    """The bands and the range of the inputs of pairs; their size is not known.

    Raises:
        CascadeError: if they do not fit the space of the stage.
    """
    options = recipe.condition.paired_image
    if options is None:
        return pictures_space(recipe)
    with fault_in("condition.paired_image", tuple(vars(options))):
        return PairedImage(**vars(options)).image_space(pictures_space(recipe))


def decoding_of(recipe: StageRecipe) -> Decoding | BandDecoding:
    """How the image files of a recipe are read for training.

    Raises:
        RecipeError: if a range does not fit colour pictures.
    """
    space, data = pictures_space(recipe), recipe.data
    if not space.has_bands:
        return Decoding(colour_range(recipe), data.truncated, data.outside)
    keys = {"outside", "nodata", "axis", "missing"}
    return BandDecoding.of_space(space, **data.model_dump(include=keys))


def pair_check_of(recipe: StageRecipe) -> PairCheck | None:
    """What is expected of the pairs of a recipe; None if it trains on no pairs.

    Raises:
        CascadeError: if sizes or ranges do not fit.
    """
    if recipe.data.pairs is None:
        return None
    space, low = pictures_space(recipe), recipe.condition.low_resolution
    scale = 1 if low is None else space.scale_from(LowResolution(size_px=low.size_px).size)
    decoding = partner_decoding(decoding_of(recipe), inputs_space(recipe))
    return PairCheck(decoding, scale, recipe.data.max_shift_px)


def known_check_of(recipe: StageRecipe) -> KnownCheck | None:
    """What images with missing values must keep; None if none are used, or pairs stay as large."""
    data = recipe.data
    if data.missing != "mask" or data.pairs is not None:
        return None
    return KnownCheck(pictures_space(recipe), enlarge=data.too_small == "enlarge")


def colour_range(recipe: StageRecipe) -> tuple[int, int] | None:
    """The numbers of colour pictures that become black and white; None for all of them.

    Raises:
        RecipeError: if they are not whole, or pictures do not have them.
    """
    ends = recipe.data.range
    if ends is None or pictures_space(recipe).has_bands:
        return None
    low, high = ends[0], ends[1]
    assert not isinstance(low, tuple)
    assert not isinstance(high, tuple)
    if low != int(low) or high != int(high) or not 0 <= low < high <= MOST_LEVEL:
        raise RecipeError(
            "data.range of colour images must be two whole numbers [black, white] from 0 to "
            f"{MOST_LEVEL}, the smaller one first, got {list(ends)}; for bands of other values "
            "set space.channels or space.range."
        )
    return int(low), int(high)


def reading_options(recipe: StageRecipe) -> dict[str, Any]:
    """The arguments of `TrainingImages` that come from the section of the data."""
    keys = {"crop_px", "flip", "rotate90", "too_small", "truncated", "cache_mib"}
    keys |= {"max_broken_share", "outside", "nodata", "axis", "missing"}
    keys |= set() if recipe.data.pairs is None else {"max_shift_px"}
    return {**recipe.data.model_dump(include=keys), "range": colour_range(recipe)}


def with_range(recipe: StageRecipe, source: ImageSource, out: Path) -> StageRecipe:
    """The recipe with the range of its bands in its space, measured if it asks for percentiles.

    A run that resumes keeps the range that it measured when it began.

    Args:
        recipe: the recipe of the stage.
        source: its training images.
        out: folder of the run.

    Raises:
        DataError: if no range can be measured.
    """
    data = recipe.data
    if recipe.space.kind != "pixels":
        return recipe
    if data.percentiles is None:
        space = recipe.space.model_copy(update={"range": space_of(recipe).range})
        return recipe.model_copy(update={"space": space})
    space_of(recipe)  # refuses a range that is stated too
    ranges: Any = None
    if checkpoints(out / "checkpoints"):
        ranges = load_stage_recipe(out / "recipe.yaml").space.range
    if ranges is None and not isinstance(source, TensorSource):
        decoding = BandDecoding(recipe.space.channels, nodata=data.nodata, axis=data.axis)
        ranges = list(measured_ranges(source, decoding, data.percentiles))
        if is_main_process():
            texts = [f"band {n} {low:g} to {high:g}" for n, (low, high) in enumerate(ranges, 1)]
            logger.info("measured range of the training images: %s.", ", ".join(texts))
    space = recipe.space.model_copy(update={"range": ranges})
    return recipe.model_copy(
        update={"space": space, "data": data.model_copy(update={"percentiles": None})}
    )
