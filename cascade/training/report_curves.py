"""The curves in the report of a run: values of the steps, and meters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cascade.reporting.curves import Series, line_chart, with_running_mean
from cascade.reporting.page import Html, joined, note, side_by_side
from cascade.training.meters import CHANNELS, LOG_SNRS
from cascade.training.run_record import RunRecord

METERS_NOTE = (
    "Measured with averaged weights on the images and seeds of the samples above. Loss: at fixed "
    "noise levels, from little noise (+7) to much (-7). Drift: samples minus truth, over all "
    "pixels; for a base stage the truth is training images with the same labels."
)
CONSISTENCY_NOTE = " Consistency: the downscaled samples compared with their low-resolution input."


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
    """Loss by noise level, consistency and colour drift over the images seen."""
    consistency = line_chart(
        [_series(run.meters, "low_res_consistency")],
        title="Low-resolution consistency, squared 8-bit units",
        **_axis(run),
        log=True,
    )
    charts = [
        _loss_chart(run),
        consistency,
        _drift_chart(run, "colour_mean", "Mean of colours"),
        _drift_chart(run, "colour_spread", "Spread of colours"),
    ]
    if not any(charts):
        return Html("")
    text = METERS_NOTE + (CONSISTENCY_NOTE if consistency else "")
    return joined(side_by_side([chart for chart in charts if chart]), note(text))


def _loss_chart(run: RunRecord) -> Html:
    levels = [
        _series(run.meters, f"loss_at_log_snr_{level:+d}", f"{level:+d}", _shade(number))
        for number, level in enumerate(LOG_SNRS)
    ]
    return line_chart(levels, title="Loss by log-SNR", **_axis(run), log=True)


def _drift_chart(run: RunRecord, key: str, title: str) -> Html:
    series = [_series(run.meters, f"{key}_{name}", name, f"var(--{name})") for name in CHANNELS]
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


def _shade(number: int) -> str:
    """From warm at little noise to cold at much; readable on light and dark backgrounds."""
    return f"hsl({20 + 230 * number / (len(LOG_SNRS) - 1):.0f} 60% 50%)"
