"""`cascade export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cascade.cli import names
from cascade.cli.verbosity import note


def export(
    pipeline: names.Pipeline,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")],
    engine_format: Annotated[
        Literal["onnx", "openvino"],
        typer.Option("--format", help="ONNX, or OpenVINO's intermediate representation."),
    ] = "openvino",
) -> None:
    """Export the network of each stage for another engine.

    The sampling loop stays in Python. --engine takes a folder in OpenVINO format; ONNX files are
    for your own programs.

    Examples:

    cascade export emoji-1024 -o emoji-openvino

    cascade generate emoji-1024 -n 16 -o out --engine emoji-openvino

    cascade export photo-x4 --format onnx -o photo-onnx
    """
    from cascade.engines.exporting import export_networks, exported_stages
    from cascade.pipeline import CascadePipeline
    from cascade.reporting.words import counted

    chain = CascadePipeline.from_pretrained(pipeline).stages
    export_networks(chain, engine_format, out)
    note(f"{counted(len(exported_stages(chain)), 'network')} in {out}")
