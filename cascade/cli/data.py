"""`cascade data`: its commands are `build` and `check`."""

from __future__ import annotations

import typer

from cascade.cli.data_build import build
from cascade.cli.data_check import check
from cascade.cli.verb import add_verb

data = typer.Typer(no_args_is_help=True, help="Build shards from images, and check images.")

for verb in (build, check):
    add_verb(data, verb)
