"""`cascade inspect`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.documents import EXIT_CODE, AsJson, Document, message_of

if TYPE_CHECKING:
    from cascade.cli.remaking import Remaking
    from cascade.inspection import Inspection

UNREADABLE = "unreadable"


def inspect(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(help="Images, and folders of images.")],
    as_json: AsJson = False,
) -> Document | None:
    """Show how images were made: model, seed, settings, mark, and the command.

    The mark is the IPTC's term for images that a trained model made or changed. For content
    credentials (C2PA), the command shows who signed them and whether the file has changed since.

    In the printed command, words in capitals stand for files that the image does not record: INPUT
    is the image that was upscaled, colourised, restored or edited.

    Images that cannot be read are listed and counted, and the exit code is then 1. The last line
    counts the images by their mark.

    Examples:

    cascade inspect out/00000.png

    cascade inspect large/*.jpg --json

    cascade inspect archive
    """
    from cascade.cli.progress import printable
    from cascade.cli.remaking import Remaking, remaking_of
    from cascade.errors import DataError
    from cascade.imaging.rasters.reading import suffix_of
    from cascade.inspection import inspect_picture, pictures_of

    assert context.parent is not None
    commands: Any = getattr(context.parent.command, "commands", {})
    documents: list[Document] = []
    kinds: Counter[str] = Counter()
    files = pictures_of(images)
    if not files:
        raise DataError(f"no images in {', '.join(map(str, images))}; name another folder.")
    for path in files:
        try:
            inspection = inspect_picture(path)
        except DataError as error:
            if files == images[:1] and len(images) == 1:
                raise
            kinds[UNREADABLE] += 1
            documents.append({"file": str(path), "error": message_of(error)})
            if not as_json:
                fault = message_of(error).removeprefix(f"{path}: ")
                typer.echo(f"{printable(str(path))}\n  fault    {printable(fault)}")
            continue
        kinds[_kind_of(inspection)] += 1
        record = inspection.record
        remaking = remaking_of(record, commands, suffix_of(path.name)) if record else Remaking()
        if as_json:
            documents.append(_document(path, inspection, remaking))
            continue
        typer.echo(printable(str(path)))
        lines = [("command", remaking.command), *(("note", note) for note in remaking.notes)]
        for name, text in [*inspection.lines(), *lines]:
            if text:
                typer.echo(f"  {name:8} {printable(text)}")
    if len(files) > 1 and not as_json:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        typer.echo(f"{len(files):,} images: {counts}")
    if kinds[UNREADABLE]:
        context.meta[EXIT_CODE] = 1
    return {"images": documents} if as_json else None


def _kind_of(inspection: Inspection) -> str:
    """The words by which a picture is counted."""
    if inspection.source_type:
        return inspection.source_type
    if inspection.is_sheet:
        return "sheets or maps without a mark"
    return "with a record but no mark" if inspection.raw_record else "without record or mark"


def _document(path: Path, inspection: Inspection, remaking: Remaking) -> Document:
    from dataclasses import asdict

    faults = [f"the record cannot be read ({inspection.fault})"] if inspection.fault else []
    values = {
        "file": str(path),
        "mark": inspection.source_type,
        "command": remaking.command,
        "notes": [*faults, *remaking.notes],
        "record": inspection.raw_record,
    }
    if inspection.manifest is not None:
        values["manifest"] = asdict(inspection.manifest)
    return values
