"""Looks at a sample of a recipe's images before training: do they fit the stage?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cascade.building.data_notes import DataNotes
from cascade.building.residual_size import (
    measured_residual,
    residual_text,
    residual_warnings,
)
from cascade.building.spaces import (
    decoding_of,
    known_check_of,
    pair_check_of,
    pictures_space,
)
from cascade.building.stages import build_conditions
from cascade.building.validation import open_data, overlap_warnings
from cascade.conditioning.condition import Condition
from cascade.conditioning.low_resolution import LowResolution
from cascade.data.broken import allowed_images
from cascade.data.checking import NAMED_CLASSES, DataReport, aligned, check_images
from cascade.data.examination import examine
from cascade.data.remote import is_remote, without_secrets
from cascade.data.source import ImageSource
from cascade.data.sources import HUGGING_FACE
from cascade.data.training_images import epoch_order
from cascade.errors import DataError, RecipeError
from cascade.recipe.finding import list_recipes
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.reporting.words import counted
from cascade.space import Size

SAMPLE_IMAGES = 64
FIRST_IMAGES = 16  # that training looks at before it starts
NAMED_IMAGES = 3
ADVICE = "; make {low} black and {high} white with data.range=[{low},{high}]"


@dataclass
class DataFindings:
    """What a sample of images shows about a recipe's data.

    Attributes:
        facts: lines that describe the data.
        warnings: what a user should know before training.
        errors: why training would fail.
    """

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def preview_data(
    recipe: StageRecipe, *, own_path: bool = True, verbose: bool = False
) -> DataFindings:
    """Open a recipe's data, and decode the first images that training would see.

    Data on another machine is not fetched.

    Args:
        recipe: the recipe of a stage.
        own_path: whether the user gave `data.path`. If not, and it is that of a bundled recipe,
            missing data is no error.
        verbose: whether to name every label and file that does not fit.
    """
    keys, path = recipe.data, recipe.data.path
    findings = DataFindings()
    for each in (path, keys.validation, keys.pairs, keys.validation_pairs):
        if not isinstance(each, str):
            continue
        if is_remote(each) or each.startswith(HUGGING_FACE):
            findings.warnings.append(
                f"the data is remote and was not opened; cascade data check {without_secrets(each)}"
                " fetches and checks it."
            )
            return findings
    try:
        data = open_data(recipe)
        findings.warnings += overlap_warnings(data, recipe)
    except RecipeError as error:
        findings.errors.append(str(error))
        return findings
    except DataError as error:
        if own_path or path not in _bundled_paths():
            stop = "" if str(error).endswith((".", "?")) else "."
            findings.errors.append(f"{error}{stop} To check the recipe alone, add --no-data.")
        else:
            findings.warnings.append(
                f"the data was not checked: {error} It is the path of a bundled recipe; give your "
                "own by data.path=FOLDER."
            )
        return findings
    _look_at(data.training, recipe, findings, verbose=verbose)
    if data.validation is not None:
        findings.facts.append(f"validation: {counted(len(data.validation), 'image')}")
    return findings


def first_images_warnings(source: ImageSource, recipe: StageRecipe) -> list[str]:
    """Warn if the first images of a run have channels that are not read, or need a range."""
    if pictures_space(recipe).has_bands:
        return []
    report = _sample(source, recipe, FIRST_IMAGES)
    return [*report.contents.left_out_remarks(), *report.narrow_warnings(ADVICE)]


def _bundled_paths() -> set[str]:
    """The data paths of the bundled recipes, which stand for the user's own."""
    paths = set()
    for path in list_recipes("stages"):
        try:
            paths.add(load_stage_recipe(path).data.path)
        except RecipeError:  # someone edited it
            continue
    return paths


def _sample(source: ImageSource, recipe: StageRecipe, count: int) -> DataReport:
    """Decode the first images of a run."""
    return check_images(
        source,
        order=_order(source, recipe)[:count],
        decoding=decoding_of(recipe),
        duplicates=False,
        pairs=pair_check_of(recipe),
        known=known_check_of(recipe),
    )


def _order(source: ImageSource, recipe: StageRecipe) -> list[int]:
    """The order of the images in the first epoch of a run."""
    return epoch_order(recipe.train.seed, 0, len(source)).tolist()


def _look_at(
    source: ImageSource, recipe: StageRecipe, findings: DataFindings, *, verbose: bool
) -> None:
    notes, classes = DataNotes(source, recipe), {}

    def vocabulary(fields: Sequence[str]) -> dict[str, list[str]]:
        names = notes.vocabulary(fields)
        classes.update(names)
        return names

    conditions: tuple[Condition, ...] = ()
    try:
        conditions = build_conditions(recipe, vocabulary)
        notes.look_at(conditions)
    except DataError as error:
        findings.errors.append(str(error))
    try:
        findings.warnings += notes.lines(verbose=verbose)
    except DataError as error:
        findings.errors.append(str(error))
    total, batch_size = len(source), recipe.train.batch_size
    if total < batch_size:
        findings.errors.append(
            f"{total} images are too few for a batch of {batch_size}; add images or lower "
            "train.batch_size."
        )
    report = _sample(source, recipe, SAMPLE_IMAGES)
    report.labels.clear()  # the classes of all images are listed instead
    which = "all" if report.images == total else f"the first {report.images} of a run"
    data = {"data": f"{without_secrets(recipe.data.path)}: {total} images, {which} decoded"}
    facts = data | {name: _listing(names) for name, names in classes.items()} | report.facts()
    _check_broken(report, source, recipe, findings)
    _check_sizes(report, source, recipe, findings)
    facts |= _residual_facts(source, recipe, conditions, findings)
    findings.facts += aligned(facts)
    findings.warnings += report.warnings(ADVICE)


def _residual_facts(
    source: ImageSource,
    recipe: StageRecipe,
    conditions: Sequence[Condition],
    findings: DataFindings,
) -> dict[str, str]:
    """The measured `residual_std` beside the stated one, if training can begin."""
    stated = recipe.diffusion.residual_std
    if stated is None or findings.errors:
        return {}
    try:
        measured = measured_residual(recipe, source, conditions, SAMPLE_IMAGES)
    except DataError as error:
        findings.errors.append(str(error))
        return {}
    findings.warnings += residual_warnings(recipe, measured)
    return {"residual_std": residual_text(stated, measured)}


def _listing(names: Sequence[str]) -> str:
    more = ", …" if len(names) > NAMED_CLASSES else ""
    noun = "class" if len(names) == 1 else "classes"
    return f"{len(names)} {noun}: {', '.join(names[:NAMED_CLASSES])}{more}"


def _check_broken(
    report: DataReport, source: ImageSource, recipe: StageRecipe, findings: DataFindings
) -> None:
    broken = [*report.broken, *report.pairs.shifted]
    if not broken:
        return
    examples = " ".join(broken[:NAMED_IMAGES])
    known = known_check_of(recipe)
    size_px = None if known is None else max(known.space.size)
    command = source.check_command(*decoding_of(recipe).check_words, size_px=size_px)
    text = f"broken images: {len(broken)} of {report.images}: {examples} {command} lists them all."
    too_many = len(broken) > allowed_images(len(source), recipe.data.max_broken_share)
    too_many |= len(broken) == report.images
    (findings.errors if too_many else findings.warnings).append(text)


def _check_sizes(
    report: DataReport, source: ImageSource, recipe: StageRecipe, findings: DataFindings
) -> None:
    space, policy = pictures_space(recipe), recipe.data.too_small
    height, width = space.size
    small = sum(n for (w, h), n in report.sizes_px.items() if w < width or h < height)
    if not small:
        return
    if policy == "skip":
        sizes_px = _sizes_if_none_fits(report, source, recipe)
        if sizes_px is not None:
            findings.errors.append(_none_fits(sizes_px, source, recipe))
            return
    fates = {
        "skip": "training leaves them out; data.too_small=enlarge would upscale them",
        "enlarge": "training upscales them",
        "error": "training would stop at the first one; set data.too_small to skip or enlarge",
    }
    if recipe.data.pairs is not None:
        fates["skip"] = "training leaves them out, since pairs are not resized"
        fates["error"] = "training would stop at the first one; set data.too_small to skip"
    text = (
        f"images smaller than the stage's {space.size_text}: {small} of {report.images}; "
        f"{fates[policy]}. {source.check_command(size_px=max(space.size))} lists them."
    )
    (findings.errors if policy == "error" else findings.warnings).append(text)


def _sizes_if_none_fits(
    report: DataReport, source: ImageSource, recipe: StageRecipe
) -> Counter[Size] | None:
    """Sizes (width, height) of all readable images if each is smaller than the stage, else None.

    The images after the sample are read until one fits, as training would do.
    """
    height, width = pictures_space(recipe).size
    sizes_px, pairs = report.sizes_px.copy(), pair_check_of(recipe)
    if any(w >= width and h >= height for w, h in sizes_px):
        return None
    images = examine(
        source,
        order=_order(source, recipe)[report.images :],
        decoding=decoding_of(recipe),
        digest=False,
        pairs=None if pairs is None else pairs._replace(max_shift_px=None),
    )
    for each in images:
        if each.broken is not None:
            continue
        if each.width_px >= width and each.height_px >= height:
            return None
        sizes_px[each.width_px, each.height_px] += 1
    return sizes_px


def _none_fits(sizes_px: Counter[Size], source: ImageSource, recipe: StageRecipe) -> str:
    """Say that all images are too small, what sizes they have, and which keys to set."""
    space, low = pictures_space(recipe), recipe.condition.low_resolution
    ordered = sorted(sizes_px, key=math.prod)
    found = " to ".join(dict.fromkeys(f"{w}x{h}" for w, h in (ordered[0], ordered[-1])))
    cure = "set space.size_px to a size that they have"
    if recipe.data.encoder is not None:
        cure = "name a data.encoder that was trained on smaller images"
    elif low is not None:
        scale = space.scale_from(LowResolution(size_px=low.size_px).size)
        cure += f", and condition.low_resolution.size_px to 1/{scale} of it"
    if recipe.data.pairs is None:
        cure += "; or upscale them by data.too_small=enlarge"
    return (
        f"all {sizes_px.total()} readable images are smaller than the stage's {space.size_text}: "
        f"{found} px. Training would have none; {cure}. "
        f"{source.check_command(size_px=max(space.size))} lists them."
    )
