"""The curves in the report of a run: values of the steps, the validation loss, and meters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cascade.reporting.curves import Series, line_chart, with_running_mean
from cascade.reporting.page import Html, joined, note, side_by_side
from cascade.training.meters import CHANNELS, LOG_SNRS, level_name
from cascade.training.parting import Parting, find_parting
from cascade.training.run_record import RunRecord
from cascade.training.validation_figures import TRAINING_LOSS, VALIDATION

NOT_METERS = ("images", "seconds", "kind")
NOT_FIGURES = (*NOT_METERS, VALIDATION, "loss", TRAINING_LOSS)
FIGURES = {"psnr": "PSNR, dB", "ssim": "SSIM"}
VALIDATION_NOTE = (
    "Measured with averaged weights, always on the same images, crops, noise and timesteps. Both "
    "losses are means over equally many images with the same noise and timesteps, so only the "
    "images differ."
)
GENERAL_METERS = ("loss_at_log_snr_", "colour_mean_", "colour_spread_")
METERS_NOTE = (
    "Measured with averaged weights on the images and seeds of the samples above. Loss: at fixed "
    "noise levels, from little noise (+7) to much (-7). Drift: samples minus truth, over all "
    "pixels; without an input image the truth is training images with the same labels. Other "
    "meters: how far samples are from their inputs."
)


def training_curves(run: RunRecord) -> Html:
    """Loss, gradient norm, learning rate and speed over the images seen."""
    charts = [
        _step_chart(run, "loss", "Loss", log=True),
        _step_chart(run, "gradient_norm", "Gradient norm", log=True),
        line_chart(
            [_series(run.steps, "learning_rate_factor")],
            title="Learning rate as a fraction of the full rate",
            **_axis(run),
            include=(0, 1),
        ),
        _step_chart(run, "images_per_s", "Images per second", include=(0,)),
    ]
    if not any(charts):
        return Html("")
    return joined(side_by_side(charts), note("Pale: as logged. Line: running mean."))


def _step_chart(run: RunRecord, key: str, title: str, **options: Any) -> Html:
    series = with_running_mean(*_column(run.steps, key))
    return line_chart(series, title=title, **_axis(run), **options)


def meter_curves(run: RunRecord) -> Html:
    """Loss by noise level, the meters of conditions, and colour drift over the images seen."""
    charts = [
        _loss_chart(run, run.meters, "Loss by log-SNR"),
        *(_condition_chart(run, key) for key in _condition_meters(run)),
        _drift_chart(run, "colour_mean", "Mean of colours"),
        _drift_chart(run, "colour_spread", "Standard deviation of colours"),
    ]
    if not any(charts):
        return Html("")
    return joined(side_by_side([chart for chart in charts if chart]), note(METERS_NOTE))


def validation_curves(run: RunRecord) -> Html:
    """The validation and training loss with marks, the loss by noise level, and figures."""
    lines = run.validation
    if not lines:
        return Html("")
    lowest = min(lines, key=lambda line: line["loss"] if math.isfinite(line["loss"]) else math.inf)
    parting = parting_of(run)
    marks = {"lowest": lowest["images"]}
    if parting.images is not None:
        same = parting.images == lowest["images"]
        marks = {"they diverge": parting.images} | ({} if same else marks)
    losses = [
        _series(lines, "loss", "held-out", "var(--red)"),
        _series(lines, TRAINING_LOSS, "training images"),
    ]
    charts = [
        line_chart(
            losses, title="Loss, measured in the same way", **_axis(run), log=True, marks=marks
        ),
        _loss_chart(run, lines, "Validation loss by log-SNR"),
        *(_figure_chart(run, key) for key in _own_keys(lines, NOT_FIGURES)),
    ]
    text = (
        f"The validation loss is lowest after {lowest['images']:,} images: {lowest['loss']:.4g}. "
    )
    return joined(
        note(text + parting.advice),
        side_by_side([chart for chart in charts if chart]),
        note(VALIDATION_NOTE),
    )


def parting_of(run: RunRecord) -> Parting:
    """Where validation and training loss diverge; for a run that measured both."""
    lines = run.validation
    columns = ([float(line[key]) for line in lines] for key in ("images", "loss", TRAINING_LOSS))
    return find_parting(*columns)


def _figure_chart(run: RunRecord, key: str) -> Html:
    title = FIGURES.get(key, key.replace("_", " ").capitalize())
    return line_chart([_series(run.validation, key)], title=f"{title}, validation", **_axis(run))


def _own_keys(lines: Sequence[Mapping[str, Any]], others: Sequence[str]) -> list[str]:
    keys = {key for line in lines for key in line if not key.startswith(GENERAL_METERS)}
    return sorted(keys - {*others})


def _condition_meters(run: RunRecord) -> list[str]:
    """The meters that the stage's conditions named, such as `low_res_consistency`."""
    return _own_keys(run.meters, NOT_METERS)


def _condition_chart(run: RunRecord, key: str) -> Html:
    title = key.replace("_", " ").capitalize()
    return line_chart([_series(run.meters, key)], title=title, **_axis(run), log=True)


def _loss_chart(run: RunRecord, lines: Sequence[Mapping[str, Any]], title: str) -> Html:
    levels = [
        _series(lines, level_name(level), f"{level:+d}", _shade(number, len(LOG_SNRS)))
        for number, level in enumerate(LOG_SNRS)
    ]
    return line_chart(levels, title=title, **_axis(run), log=True)


def _drift_chart(run: RunRecord, key: str, title: str) -> Html:
    keys = list(dict.fromkeys(k for line in run.meters for k in line if k.startswith(f"{key}_")))
    names = [each.removeprefix(f"{key}_") for each in keys]
    series = [
        _series(run.meters, each, name, _channel_colour(name, number, len(names)))
        for number, (each, name) in enumerate(zip(keys, names, strict=True))
    ]
    return line_chart(series, title=f"{title}: drift, 8-bit units", **_axis(run), include=(0,))


def _series(
    lines: Sequence[Mapping[str, Any]], key: str, name: str = "", colour: str = "var(--line)"
) -> Series:
    return Series(*_column(lines, key), name, colour)


def _column(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Images seen, and values, of the lines that have a number under a key."""
    rows = [line for line in lines if isinstance(line.get(key), (int, float))]
    return [float(line["images"]) for line in rows], [float(line[key]) for line in rows]


def _axis(run: RunRecord) -> dict[str, Any]:
    return {"x_label": "images seen", "x_end": run.images_seen}


def _channel_colour(name: str, number: int, count: int) -> str:
    return f"var(--{name})" if name in CHANNELS else _shade(number, count)


def _shade(number: int, count: int) -> str:
    """From warm for the first line to cold for the last; readable on light and dark backgrounds."""
    return f"hsl({20 + 230 * number / max(1, count - 1):.0f} 60% 50%)"
