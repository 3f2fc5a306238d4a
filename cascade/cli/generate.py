"""`cascade generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli import completing, names, sampling, signing
from cascade.cli.documents import AsJson, Document
from cascade.cli.prompts import read_prompts
from cascade.cli.verb import SAMPLER_NAMES
from cascade.cli.verbosity import note

if TYPE_CHECKING:
    from cascade.generation.files import GeneratedFiles
    from cascade.generation.request import Generation
    from cascade.pipeline import CascadePipeline

Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        path_type=str,  # a Path would join the two slashes of an address
        help="Folder for the images, or the address of one in a store.",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Argument(metavar="PROMPT", help="Prompt, for pipelines that take text."),
]
PromptOption = Annotated[str | None, typer.Option("--prompt", hidden=True)]  # as others have it
Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts", metavar="FILE", help="UTF-8 file with one prompt per line; - for stdin."
    ),
]
Negative = Annotated[
    str | None,
    typer.Option("--negative", metavar="TEXT", help="Negative prompt; needs guidance above 1."),
]
Like = Annotated[
    Path | None,
    typer.Option(
        "--like", metavar="IMAGE", help="Image to vary, for pipelines with an image embedding."
    ),
]
NumImages = Annotated[
    int, typer.Option("--num-images", "-n", min=1, help="Number of images, for each prompt.")
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="Seed of the first image; the others count up. Default: random."),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        "-c",
        help="Class, such as cat-face or cat-face,noto; several alternate. Default: random.",
        autocompletion=completing.classes,
    ),
]
Steps = Annotated[
    str | None, typer.Option(help="Number of steps: 50 for all stages, or 50,25 for each.")
]
SamplerName = Annotated[
    str | None,
    typer.Option(
        help=f"One of {SAMPLER_NAMES}, or the class name of a diffusers scheduler; for all "
        "stages, or one for each, separated by commas."
    ),
]
Guidance = Annotated[
    str | None,
    typer.Option(help="Scale of classifier-free guidance: 2 for all stages, or 2,1 for each."),
]
Augmentation = Annotated[float | None, typer.Option(help="Augmentation level of the upsamplers.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images per batch.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps; default: the best one available.")
]
NoMetadata = Annotated[bool, typer.Option("--no-metadata", help="Write no mark, seed or settings.")]
KeepIntermediates = Annotated[
    bool, typer.Option("--keep-intermediates", help="Also write the images of earlier stages.")
]
StopAt = Annotated[
    str | None,
    typer.Option("--stop-at", metavar="STAGE", help="Stop at this stage and write its images."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start at 00000.png again, instead of continuing.")
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Complete the last series in the folder if it was stopped."),
]


def generate(
    pipeline: names.Pipeline,
    out: Out,
    prompt: Prompt = None,
    prompt_option: PromptOption = None,
    prompts: Prompts = None,
    negative: Negative = None,
    like: Like = None,
    num_images: NumImages = 1,
    seed: Seed = None,
    classes: Classes = None,
    steps: Steps = None,
    sampler: SamplerName = None,
    guidance: Guidance = None,
    augmentation: Augmentation = None,
    changes: sampling.Set = None,
    batch_size: BatchSize = None,
    device: Device = None,
    engine: names.Engine = None,
    lora: names.Lora = None,
    c2pa_certificate: signing.Certificate = None,
    c2pa_key: signing.Key = None,
    no_metadata: NoMetadata = False,
    keep_intermediates: KeepIntermediates = False,
    stop_at: StopAt = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> Document | None:
    """Generate images: numbered PNGs that record their seed and settings, and grid.png.

    The grid shows the first 64 images, at most 4096 px a side.
    Numbering continues after the images in the folder; a later grid has the number of its first
    image. With prompts, index.jsonl lists the prompt and the seed of each image. After an
    interruption, the same command with --resume makes the missing ones.

    Examples:

    cascade generate emoji-1024 "a cat with tears of joy" -n 4 -o cats

    cascade generate emoji-1024 "a fox" -n 4 --guidance 3 --stop-at upsampler_256 -o foxes

    cascade generate my-pipeline "a cat" -n 4 --negative dog --guidance 3 -o cats

    cascade generate my-pipeline --prompts prompts.txt -n 2 --seed 0 --resume -o out

    cascade generate my-unclip --like picture.png -n 4 -o variations

    cascade generate emoji-1024 -n 4 --class cat-face,noto --seed 7 --steps 50,8,4 -o cats

    cascade generate emoji-1024 -n 4 --set eta=0.5 --set base.guidance=2.5 -o out
    """
    from cascade.generation.request import Generation

    texts = read_prompts(prompt, prompt_option, prompts)
    per_stage = {
        "steps": _values(steps, int, "--steps"),
        "sampler": _values(sampler, str, "--sampler"),
        "guidance": _values(guidance, float, "--guidance"),
        "augmentation_level": augmentation,
    }
    overrides = sampling.parse(changes)
    loaded = _load(pipeline, lora, device, engine)
    stages = loaded.stages.names
    generation = Generation(
        num_images=num_images,
        prompts=texts,
        negative_prompt=negative,
        like=like,
        seed=seed,
        classes=classes or [],
        overrides=overrides.per_stage(stages, stages, **per_stage).with_later(overrides),
        batch_size=batch_size,
        adapters=sampling.adapters(lora),
        signer=signing.signer_of(c2pa_certificate, c2pa_key),
        metadata=not no_metadata,
        keep_intermediates=keep_intermediates,
        stop_at=stop_at,
        overwrite=overwrite,
        resume=resume,
    )
    files, place = _generate(loaded, pipeline, out, generation)
    if as_json:
        return _document(" + ".join([pipeline, *(lora or [])]), files, place)
    _report(files, place)


def _load(
    name: str, lora: list[str] | None, device: str | None, engine: str | None
) -> CascadePipeline:
    """Load a pipeline with its adapters, for a device or an engine."""
    from cascade.devices import check_engine_device, find_device
    from cascade.pipeline import CascadePipeline

    if engine is not None:
        check_engine_device(device)
    torch_device = find_device(device if engine is None else "cpu")
    pipeline = CascadePipeline.from_pretrained(name)
    pipeline = sampling.adapted(pipeline, lora)
    return pipeline.to(torch_device) if engine is None else pipeline.with_engine(engine)


def _generate(
    pipeline: CascadePipeline, name: str, out: str, generation: Generation
) -> tuple[GeneratedFiles, str]:
    """Generate into a folder or an object store; returns its place without secrets as well."""
    from cascade.cli.progress import SamplingProgress
    from cascade.generation.files import generate_files

    with SamplingProgress(generation.total) as progress:
        options = {
            "name": name,
            "callback": progress.on_step,
            "on_series": lambda series, earlier: progress.leave_out(earlier),
        }
        if "://" not in out:
            return generate_files(pipeline, Path(out), generation, **options), out
        from cascade.data.remote import without_secrets  # which is slow to import
        from cascade.generation.storing import generate_to_store

        return generate_to_store(pipeline, out, generation, **options), without_secrets(out)


def _report(files: GeneratedFiles, out: str) -> None:
    from cascade.reporting.words import counted

    count = len(files.pictures)
    sheets = f"{files.grid.name} and {files.index.name}" if files.index else files.grid.name
    if files.earlier:
        note(f"{counted(files.earlier, 'image')} of {count} existed already")
    note(f"{counted(count, 'image')}{',' if files.index else ' and'} {sheets} in {out}")


def _document(pipeline: str, files: GeneratedFiles, out: str) -> Document:
    def place(file: Path) -> Path | str:
        return file if file.parent == Path(out) else f"{out.rstrip('/')}/{file.name}"

    each = zip(files.pictures, files.seeds, files.prompts, strict=True)
    return {
        "pipeline": pipeline,
        "images": [
            {"file": place(file), "seed": seed, "prompt": prompt} for file, seed, prompt in each
        ],
        "grid": place(files.grid),
        "index": files.index and place(files.index),
        "earlier": files.earlier,
    }


def _values(text: str | None, kind: type, option: str) -> Any:
    """One value, or a list of them split at commas."""
    if text is None:
        return None
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} takes numbers such as 50 or 50,25, got {text!r}."
        ) from error
    return values[0] if len(values) == 1 else values
