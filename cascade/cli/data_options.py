"""Options that `cascade data build` and `cascade data check` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from cascade.data.band_decoding import BandDecoding

MORE = "; --verbose lists them"

Source = Annotated[
    str, typer.Argument(help="Images: a folder, shards such as 'a-*.tar', or hf:NAME.")
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Number of processes that read images.")
]
NamePattern = Annotated[
    str | None,
    typer.Option(
        "--name-pattern", help="Regular expression on file names; its named groups are labels."
    ),
]
Range = Annotated[
    tuple[int, int] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        help="Values that are black and white in the files; values outside are clipped.",
    ),
]
Bands = Annotated[
    int | None,
    typer.Option("--bands", min=1, max=64, help="Read this many bands of measured values."),
]
Nodata = Annotated[
    float | None, typer.Option("--nodata", help="With --bands: value that marks missing data.")
]
Axis = Annotated[
    int | None,
    typer.Option("--axis", min=0, max=2, help="With --bands: axis along which volumes are sliced."),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="Inputs of pairs: a folder or shards with the same names; or the word beside, for "
        "NAME.low.* beside NAME.high.*."
    ),
]
PairBands = Annotated[
    int | None,
    typer.Option(
        "--pair-bands", min=1, max=64, help="With --pairs: bands of the inputs. Default: --bands."
    ),
]


def band_decoding(
    bands: int,
    nodata: float | None,
    axis: int | None,
    missing: Literal["refuse", "mask", "keep"] = "refuse",
) -> BandDecoding:
    from cascade.data.band_decoding import BandDecoding

    return BandDecoding(bands, nodata=nodata, axis=2 if axis is None else axis, missing=missing)


def check_band_options(bands: int | None, colours: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Refuse options without effect.

    Args:
        bands: the number of bands; None for colours.
        colours: options for colours alone, by name.
        numbers: options for bands alone, by name.
    """
    unused, other = (numbers, "needs") if bands is None else (colours, "cannot be used with")
    for name, value in unused.items():
        if value is not None:
            raise typer.BadParameter(f"{name} {other} --bands.")
