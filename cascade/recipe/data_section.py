"""The section `data` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from cascade.recipe.section import Section
from cascade.recipe.values import Number, Pair, Pairs, Whole, has_pairs


def _axes(value: Any) -> Any:
    """Explain booleans and single letters where a list of axes is expected."""
    if isinstance(value, bool | str):
        raise PydanticCustomError(
            "axes",
            "input should be a list: [x] mirrors left and right, [y] top and bottom, [] none",
        )
    return value


def _held_out(value: Any) -> Any:
    """Explain what is neither a place of validation images nor a share."""
    is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
    if value is None or isinstance(value, str) or is_share:
        return value
    raise PydanticCustomError(
        "held_out",
        "input should be a folder, shards, or a share of the images above 0 and below 1",
    )


class DataSection(Section):
    """The training images, and how they are cropped and cached.

    Attributes:
        path: folder, shards or `hf:NAME`.
        only: names to keep, by label field: `{class: [cat, dog]}`.
        crop_px: side of a random crop in pixels; conditioning images are cropped to match. None for
            the whole image.
        flip: axes along which half of the images are mirrored: `[x]` left and right, `[y]` top and
            bottom, `[x, y]` both, `[]` none. Latents and image embeddings need `[]`.
        rotate90: whether to rotate by 0, 90, 180 or 270 degrees, for images without a fixed
            orientation; needs square images or `crop_px`.
        range: values in the files of colour images that become black and white, such as [0, 4095]
            for a 12-bit camera in 16-bit files; for bands the range of `space`, such as [0, 10000],
            or one pair per band. None for all values.
        percentiles: for bands: measure the range between these percentiles, such as [0.1, 99.9],
            once over all images, and save it with the stage.
        outside: values outside the range: `clip` clips and counts them, with `error` such images
            count as broken.
        nodata: for bands: the value that marks missing data, besides NaN and the file's own.
        missing: for bands: images with missing values: `refuse` counts them as broken, `mask` fills
            these values and leaves them out of the loss.
        axis: for bands: axis of a NIfTI volume along which it is cut into slices.
        too_small: images smaller than the stage: `skip` leaves them out, `enlarge` upscales them,
            `error` stops the run.
        truncated: JPEG files whose end is missing: `refuse` counts them as broken, `keep` reads
            them as far as they go.
        cache_mib: memory for decoded images in MiB, per data worker.
        max_broken_share: largest share of broken images, and of mismatched labels, before the run
            stops; three of each are always allowed, unless it is 0.
        name_pattern: regular expression on file names, whose named groups are labels.
        cache_dir: folder for copies of remote shards, embeddings of captions and images, and
            latents; None for the user's cache.
        encoder: what makes latents or embeddings of the images, for stages of such a space. For
            latents an autoencoder: a run, a stage, or a VAE folder of diffusers; for embeddings an
            encoder of image embeddings.
        pairs: the inputs of pairs: a folder or shards with the names of `path`, or `beside` for
            `NAME.low.*` beside `NAME.high.*`.
        max_shift_px: pairs that lie further apart, beyond the error of the measurement, count as
            broken, in pixels of the smaller image; None for any shift.
        validation: images for the validation loss: a folder, shards or a Hugging Face data set, or
            a share of `path` such as 0.1.
        split_by: for a share: a label field; images with the same name in it are not split up.
        validation_pairs: inputs of the images of `validation`, for stages that learn from pairs;
            required if `validation` is a set of its own and `pairs` is not `beside`.
    """

    path: str
    only: dict[str, list[str]] = Field(default={})
    crop_px: Whole | None = Field(default=None, gt=0)
    flip: Annotated[tuple[Literal["x", "y"], ...], BeforeValidator(_axes)] = ("x",)
    rotate90: bool = False
    range: Pairs | None = None
    percentiles: Pair | None = None
    outside: Literal["clip", "error"] = "clip"
    nodata: Number | None = None
    missing: Literal["refuse", "mask"] = "refuse"
    axis: Literal[0, 1, 2] = 2
    too_small: Literal["error", "skip", "enlarge"] = "skip"
    truncated: Literal["refuse", "keep"] = "refuse"
    cache_mib: Whole = Field(default=1024, ge=0)
    max_broken_share: Number = Field(default=0.01, ge=0, le=1)
    name_pattern: str | None = None
    cache_dir: str | None = None
    encoder: str | None = None
    pairs: str | None = None
    max_shift_px: Number | None = Field(default=0.5, gt=0)
    validation: Annotated[str | float | None, BeforeValidator(_held_out)] = None
    split_by: str | None = None
    validation_pairs: str | None = None

    @field_validator("validation_pairs")
    @classmethod
    def _pairs_have_images(cls, validation_pairs: str | None, info: ValidationInfo) -> str | None:
        named = info.data.get("pairs"), info.data.get("validation")
        if validation_pairs is not None and not all(isinstance(each, str) for each in named):
            raise ValueError(
                "needs data.pairs, and a folder or shards as data.validation, got "
                f"{validation_pairs!r}"
            )
        return validation_pairs

    @field_validator("split_by")
    @classmethod
    def _split_has_a_share(cls, split_by: str | None, info: ValidationInfo) -> str | None:
        if split_by is not None and not isinstance(info.data.get("validation"), float):
            raise ValueError(f"needs a share as data.validation, such as 0.1, got {split_by!r}")
        return split_by

    @field_validator("range")
    @classmethod
    def _range_grows(cls, range: Any) -> Any:
        pairs = range if has_pairs(range) else [range or (0, 1)]
        if not all(low < high for low, high in pairs):
            raise ValueError(
                "must be two numbers, the smaller one first, or one such pair per band, got "
                f"{range}"
            )
        return range

    @field_validator("percentiles")
    @classmethod
    def _percentiles_grow(cls, percentiles: Pair | None) -> Pair | None:
        if percentiles is not None and not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(
                f"must be two numbers from 0 to 100, the smaller one first, got {list(percentiles)}"
            )
        return percentiles
