"""Options shared by the commands that measure a pipeline on held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[str, typer.Option(help="Held-out images: a folder, or shards that end in .tar.")]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="Inputs of the held-out images, for a stage that was trained on pairs: a folder or "
        "shards with the same names, or beside for NAME.low.* beside NAME.high.*."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the first image; the others count up.")]
Extractor = Annotated[
    str, typer.Option(help="Feature extractor: lite0, lite2, inception, clip or dinov2.")
]
Alignment = Annotated[
    str | None,
    typer.Option(
        help="Measure whether images show their prompts: a folder with an alignment tower or a "
        "CLIP, or clip for a download."
    ),
]
ExtractorPath = Annotated[
    Path | None, typer.Option(help="File with the extractor's weights, instead of a download.")
]
