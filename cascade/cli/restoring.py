"""The options that `upscale`, `colourise`, `restore` and `edit` share, declared once.

`with_shared_options` adds them to the function of a command, whose first argument gets them all as
one `Shared`. A command declares only what is its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from cascade.cli import completing, names, parts, sampling, signing
from cascade.cli.hints import with_prompt
from cascade.errors import DataError

if TYPE_CHECKING:
    from cascade.bulk.commands import Request

Model = Annotated[
    str,
    typer.Option(
        help="A bundled pipeline, a Hub id, or the folder of a pipeline, a stage or a run.",
        autocompletion=completing.pipelines,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps. Default: the best one available.")
]
OwnModel = Annotated[
    str | None,
    typer.Option(
        help="A bundled pipeline, a Hub id, or the folder of a pipeline, a stage or a run. "
        "Required, except with --join.",
        autocompletion=completing.pipelines,
    ),
]
FIRST = ("inputs", "out")  # in the help of a command; the others come after its own


MODELS = (
    "Name one: photo-x4 removes dust and thin scratches, emoji-1024 edits emoji, and others are "
    "the folders of models that you trained with a mask or on pairs."
)


class MissingOption(typer.BadParameter):
    """An option that is needed, except where a command only joins.

    Args:
        option: the option in quotes.
        advice: what to give; empty for nothing.
    """

    def __init__(self, option: str, advice: str = "") -> None:
        super().__init__(option)
        self.advice = advice

    def format_message(self) -> str:
        """The message, as for options that are always needed."""
        return f"Missing option {self.message}. {self.advice}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The values of the shared options, under the names of their parameters."""

    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, globs such as 'a/**/*.jpg', *.tar, or addresses such as "
            "s3://bucket/scans."
        ),
    ]
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            path_type=str,  # a Path would join the two slashes of an address
            help="Folder of the results, the file of a single result, or the address of one in a "
            "store, such as s3://bucket/large. Required, except with --join.",
        ),
    ] = None
    variants: Annotated[
        int,
        typer.Option(
            "--variants",
            "-n",
            min=1,
            help="Number of seeds. Each gives a result, shown together on a sheet, unless --map is "
            "given.",
        ),
    ] = 1
    map: Annotated[
        bool,
        typer.Option(
            "--map",
            help="Write the mean over the seeds of -n, and beside it their standard deviation as "
            "NAME-doubt: where it is large, the result is uncertain.",
        ),
    ] = False
    steps: sampling.Steps = None
    sampler: sampling.SamplerName = None
    guidance: sampling.Guidance = None
    temperature: sampling.Temperature = None
    changes: sampling.Set = None
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")] = 0
    device: Device = None
    engine: names.Engine = None
    lora: names.Lora = None
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of processes that share the images; each gets its share of the cores.",
        ),
    ] = 1
    part: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Work on part I of N of the inputs, for machines that share no folder. Default: "
            "all; in a SLURM array, the task's part.",
        ),
    ] = None
    join: Annotated[
        bool,
        typer.Option(
            "--join",
            help="Only list what is missing; the inputs are the result folders of all parts.",
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only print what would be done with each image, and the size of its result; the "
            "model is loaded, but nothing is generated or written.",
        ),
    ] = False
    image_format: Annotated[
        Literal["png", "jpeg", "webp", "tiff"] | None,
        typer.Option(
            "--format", help="Default: the input's format, or PNG if Cascade cannot write it."
        ),
    ] = None
    pages: Annotated[
        Literal["all", "first"],
        typer.Option(
            help="Pages of a TIFF or frames of an animation to process: all, or the first."
        ),
    ] = "all"
    truncated: Annotated[
        Literal["refuse", "keep"],
        typer.Option(help="Whether to refuse a JPEG whose end is missing or keep the rest of it."),
    ] = "refuse"
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Also write before/after sheets to OUT/compare, and index.html with sliders.",
        ),
    ] = False
    no_metadata: Annotated[
        bool,
        typer.Option("--no-metadata", help="Write no EXIF, XMP, IPTC, mark or settings."),
    ] = False
    c2pa_certificate: signing.Certificate = None
    c2pa_key: signing.Key = None
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files that differ from what this command makes."),
    ] = False

    def request(
        self, model: str | None, settings: Mapping[str, Any] | None = None, **values: Any
    ) -> Request:
        """Make the request of a command.

        Args:
            model: the model; None is refused.
            settings: sampling settings from the command's own options.
            values: further fields of `Request`.

        Raises:
            BadParameter: if the options do not fit together.
        """
        from cascade.bulk.commands import Request
        from cascade.data.remote import is_remote

        if self.map and self.variants < 2:
            raise typer.BadParameter("--map needs at least 2 seeds; add -n 8, for example.")
        if self.out is None:
            raise MissingOption("'--out' / '-o'")
        if model is None:
            raise MissingOption("'--model'", MODELS)
        return Request(
            inputs=self.inputs,
            out=self.out if is_remote(self.out) else Path(self.out),
            model=model,
            overrides=sampling.overrides(
                self.changes,
                steps=self.steps,
                sampler=self.sampler,
                guidance=self.guidance,
                temperature=self.temperature,
                **(settings or {}),
            ),
            device=self.device,
            engine=self.engine,
            adapters=sampling.adapters(self.lora),
            image_format=self.image_format,
            pages=self.pages,
            truncated=self.truncated,
            compare=self.compare,
            metadata=not self.no_metadata,
            signer=signing.signer_of(self.c2pa_certificate, self.c2pa_key),
            overwrite=self.overwrite,
            part=parts.chosen_part(self.part),
            seeds=self.variants,
            map=self.map,
            dry_run=self.dry_run,
            **values,
        )


def with_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to the function of a command.

    Args:
        command: takes a `Shared` first, then its own options.
    """
    shared_names = [each.name for each in fields(Shared)]

    @functools.wraps(command)
    def run(context: typer.Context, **values: Any) -> None:
        shared = Shared(**{name: values.pop(name) for name in shared_names})
        if shared.join:
            parts.check_alone(context)
            parts.join(command.__name__, shared.inputs)
            return
        try:
            command(shared, **values)
        except DataError as error:
            if values.get("prompt", "") is not None:  # the command takes none, or has one
                raise
            raise DataError(with_prompt(str(error))) from error

    hints = get_type_hints(Shared, include_extras=True)
    options = {
        name: Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=getattr(Shared, name, Parameter.empty),
            annotation=hints[name],
        )
        for name in shared_names
    }
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [options.pop(name) for name in FIRST]
    parameters += [each.replace(kind=Parameter.KEYWORD_ONLY) for each in own]
    parameters += options.values()
    parameters.append(Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context))
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
