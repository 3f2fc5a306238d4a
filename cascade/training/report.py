"""`report.html` of a run: what was trained, curves, samples, data, recipe, versions.

It is made from the files in the run's folder alone, so that it spans all parts of a run and can be
made again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from cascade.data.remote import without_secrets
from cascade.errors import DataError
from cascade.recipe import StageRecipe, load_stage_recipe
from cascade.reporting.curves import Series, line_chart, with_running_mean
from cascade.reporting.page import (
    Html,
    code,
    counts,
    facts,
    joined,
    note,
    page,
    picture,
    side_by_side,
    table,
)
from cascade.saving.atomic import atomic_file
from cascade.training.meters import CHANNELS, LOG_SNRS
from cascade.training.provenance import read_about
from cascade.training.run_folder import RunLog

MOST_GRIDS = 4
MOST_ROWS = 100
MOST_NAMES = 200
MOST_PARTS = 10


@dataclass(frozen=True)
class RunRecord:
    """What the folder of a run holds.

    Attributes:
        folder: of the run.
        recipe: as resolved; None if it was trained without.
        about: as `provenance` wrote it.
        steps: lines of the log with the values of steps.
        meters: lines of the log with meters.
        grids: contact sheets by the number of images seen.
    """

    folder: Path
    recipe: StageRecipe | None
    about: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    meters: Sequence[Mapping[str, Any]]
    grids: Mapping[int, Path]

    @property
    def images_seen(self) -> int:
        """At the last line of the log."""
        return int(max((line["images"] for line in (*self.steps, *self.meters)), default=0))


def read_run(folder: Path) -> RunRecord:
    """Read what a run wrote.

    Raises:
        DataError: if there is no run in the folder.
    """
    log = RunLog(folder / "log.jsonl")
    about = read_about(folder)
    if not about and not log.file.is_file():
        raise DataError(f"no run in {folder}; name a folder that cascade train wrote.")
    lines = log.read()
    file = folder / "recipe.yaml"
    return RunRecord(
        folder=folder,
        recipe=load_stage_recipe(file) if file.is_file() else None,
        about=about,
        steps=[line for line in lines if "kind" not in line],
        meters=[line for line in lines if line.get("kind") == "meters"],
        grids={
            int(path.stem): path
            for path in sorted((folder / "samples").glob("*.png"))
            if path.stem.isdecimal()
        },
    )


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run.

    Returns:
        The file.

    Raises:
        DataError: if there is no run in the folder.
        OutputError: if the report cannot be written.
    """
    run = read_run(folder)
    file = folder / "report.html"
    with atomic_file(file) as temporary:
        temporary.write_text(render(run), encoding="utf-8")
    return file


def render(run: RunRecord) -> str:
    """The text of the report."""
    name = run.folder.resolve().name if run.recipe is None else run.recipe.name
    about = "" if run.recipe is None else run.recipe.description
    return page(
        name,
        about,
        [
            ("What was trained", _facts(run)),
            ("Samples", _samples(run)),
            ("Training", _training_curves(run)),
            ("Meters", _meter_curves(run)),
            ("Data", _data(run)),
            ("Recipe", _recipe(run.folder)),
            ("How it was run", _parts(run)),
        ],
    )


def _facts(run: RunRecord) -> Html:
    stage, parts = run.about.get("stage", {}), run.about.get("parts", [])
    seen, lines = run.images_seen, [*run.steps, *run.meters]
    seconds = max((line.get("seconds", 0.0) for line in lines), default=0.0)
    values = {"Stage": _describe_contract(stage.get("contract", {}))}
    if stage:
        values["Network"] = f"{stage['network']}, {stage['parameters'] / 1e6:.2f} M parameters"
        values["Predicts"] = stage["prediction"]
    values["Images seen"] = f"{seen:,}{_left(run, seen)}"
    values["Time trained"] = _duration(seconds)
    if seconds:
        values["Speed"] = f"{seen / seconds:,.1f} images/s, all included"
    if parts:
        values["Hardware"] = parts[-1]["hardware"]
    if run.steps and run.steps[-1].get("bad_steps"):
        values["Skipped steps"] = f"{run.steps[-1]['bad_steps']:,} were not finite"
    return facts(values)


def _left(run: RunRecord, seen: int) -> str:
    wanted = None if run.recipe is None else run.recipe.train.images
    if wanted is None or seen >= wanted:
        return ""
    return f" of {wanted:,}; not finished, the same command goes on"


def _describe_contract(contract: Mapping[str, Any]) -> str:
    if not contract:
        return "unknown"
    size = contract["size_px"]
    if contract.get("low_res_px"):
        return f"upsampler, {contract['low_res_px']} → {size} px"
    return f"colours of grey pictures, {size} px" if _takes(contract) else f"base, {size} px"


def _takes(contract: Mapping[str, Any]) -> bool:
    """Whether the stage is given an image."""
    return bool(contract.get("low_res_px")) or contract.get("takes") == "grey"


def _training_curves(run: RunRecord) -> Html:
    charts = [
        ("Loss", "loss", True, ()),
        ("Gradient norm", "gradient_norm", True, ()),
        ("Learning rate, as a part of the recipe's", "learning_rate_factor", False, (0, 1)),
        ("Images per second", "images_per_s", False, (0,)),
    ]
    drawn, axis = [], _axis(run)
    for title, key, log, include in charts:
        x, y = _column(run.steps, key)
        smooth = key != "learning_rate_factor"
        series = with_running_mean(x, y) if smooth else [Series(x, y)]
        drawn.append(line_chart(series, title=title, **axis, log=log, include=include))
    if not any(drawn):
        return Html("")
    return joined(side_by_side(drawn), note("Pale: as logged. Line: running mean."))


def _meter_curves(run: RunRecord) -> Html:
    levels = [
        Series(*_column(run.meters, f"loss_at_log_snr_{level:+d}"), f"{level:+d}", _shade(number))
        for number, level in enumerate(LOG_SNRS)
    ]
    axis = _axis(run)
    charts = [line_chart(levels, title="Loss by log-SNR", **axis, log=True)]
    x, y = _column(run.meters, "low_res_consistency")
    consistency = "Low-resolution consistency, squared 8-bit units"
    charts.append(line_chart([Series(x, y)], title=consistency, **axis, log=True))
    for title, key in (("Mean of colours", "colour_mean"), ("Spread of colours", "colour_spread")):
        series = [
            Series(*_column(run.meters, f"{key}_{name}"), name, f"var(--{name})")
            for name in CHANNELS
        ]
        title = f"{title}: drift, 8-bit units"
        charts.append(line_chart(series, title=title, **axis, include=(0,)))
    if not any(charts):
        return Html("")
    text = (
        "With averaged weights, on the images and seeds of the samples above. Loss: at fixed noise "
        "levels, from little noise (+7) to much (-7). Drift: samples minus truth, over all pixels; "
        "of a base stage, minus the training images with the same labels, which are other pictures."
    )
    if charts[1]:
        text += " Consistency: of the samples, made small again, with what they were made from."
    return joined(side_by_side([chart for chart in charts if chart]), note(text))


def _samples(run: RunRecord) -> Html:
    images = sorted(run.grids)
    shown = [picture for number in _spread(images) for picture in _grid(run, number)]
    if not shown:
        return Html("")
    contract = run.about.get("stage", {}).get("contract", {})
    text = "Always the same seeds and labels, by averaged weights."
    if _takes(contract):
        text += " In threes: what was given, the sample, the truth."
    return joined(side_by_side(shown), note(text))


def _grid(run: RunRecord, number: int) -> list[Html]:
    try:
        with Image.open(run.grids[number]) as image:
            return [picture(image.convert("RGB"), f"after {number:,} images")]
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return []  # somebody's own file


def _spread(numbers: Sequence[int]) -> list[int]:
    """The first, the last, and a few evenly between."""
    if len(numbers) <= MOST_GRIDS:
        return list(numbers)
    last = len(numbers) - 1
    return [numbers[round(place * last / (MOST_GRIDS - 1))] for place in range(MOST_GRIDS)]


def _data(run: RunRecord) -> Html:
    data, broken = run.about.get("data", {}), run.about.get("broken", [])
    values = {"Images": f"{data['images']:,}"} if data else {}
    if run.recipe is not None:
        values = {"Source": without_secrets(run.recipe.data.path), **values}
    if broken:
        values["Broken"] = f"{len(broken):,}, skipped"
    parts = [facts(values)]
    for field, names in data.get("classes", {}).items():
        first = dict(list(names.items())[:MOST_NAMES])
        all_of_them = "" if len(first) == len(names) else f", of which the first {MOST_NAMES}"
        parts += [note(f"{field}: {len(names):,} names{all_of_them}"), counts(first)]
    if broken:
        parts.append(table(["broken images"], [[each] for each in broken[:MOST_ROWS]]))
        if len(broken) > MOST_ROWS:
            parts.append(note(f"and {len(broken) - MOST_ROWS:,} more"))
    return joined(*parts) if values else Html("")


def _recipe(folder: Path) -> Html:
    try:
        return code(without_secrets((folder / "recipe.yaml").read_text(encoding="utf-8").strip()))
    except OSError:
        return Html("")


def _parts(run: RunRecord) -> Html:
    parts = run.about.get("parts", [])
    if not parts:
        return Html("")
    blocks = [
        joined(
            note(f"from image {part['from_images']:,}, {part['started']}, {part['hardware']}"),
            code(part["command"]),
        )
        for part in parts[-MOST_PARTS:]
    ]
    if len(parts) > MOST_PARTS:
        blocks.insert(0, note(f"{len(parts)} parts, of which the last {MOST_PARTS}:"))
    versions = {name: str(version) for name, version in parts[-1]["versions"].items()}
    return joined(*blocks, note("Versions of the last part"), facts(versions))


def _column(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Images and values of the lines that have a number under a key."""
    kept = [line for line in lines if isinstance(line.get(key), (int, float))]
    return [float(line["images"]) for line in kept], [float(line[key]) for line in kept]


def _axis(run: RunRecord) -> dict[str, Any]:
    return {"x_label": "images seen", "x_end": run.images_seen}


def _shade(number: int) -> str:
    """From warm at little noise to cold at much; readable on light and dark."""
    return f"hsl({20 + 230 * number / (len(LOG_SNRS) - 1):.0f} 60% 50%)"


def _duration(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if days < 2 else f"{days:.1f} days"
