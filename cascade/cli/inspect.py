"""`cascade inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures that Cascade made.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each picture.")
    ] = False,
) -> None:
    """Tell how pictures were made: model, seed, settings, mark, and the command.

    The mark is the IPTC's word for pictures that a trained model made or changed. Of content
    credentials (C2PA), it tells who signed them and whether the file is still as it was signed.

    Examples:

    cascade inspect out/00000.png

    cascade inspect large/*.jpg --json
    """
    import json
    from dataclasses import asdict

    from cascade.inspection import inspect_picture

    for path in pictures:
        inspection = inspect_picture(path)
        if as_json:
            values = {
                "file": str(path),
                "mark": inspection.source_type,
                "command": inspection.command,
                "record": inspection.record,
            }
            if inspection.manifest is not None:
                values["manifest"] = asdict(inspection.manifest)
            typer.echo(json.dumps(values, ensure_ascii=False))
            continue
        typer.echo(str(path))
        for name, value in inspection.lines():
            typer.echo(f"  {name:8} {value}")
