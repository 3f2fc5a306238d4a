"""Measure the prior of unCLIP on captions that it never saw, and draw variations of images.

    python benchmarks/unclip.py prior --prior runs/emoji-prior --data data/emoji
    python benchmarks/unclip.py sheet --pipeline out/emoji-unclip --data data/emoji --out sheet.png

The prior is judged by the cosine of its embedding and that of the caption's own image, beside the
cosine with the image of another caption: a prior that ignores its text has the same of both
(lucidrains/DALLE2-pytorch, issue 29). The captions are those of `heldout-*.tar` and `unseen-*.tar`.
A decoder is judged likewise, by the embeddings of its variations.

Shapes: N images, E width of an embedding.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.data.embedded_images import embed_images
from cascade.data.fitting import as_float
from cascade.data.remote import default_cache
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.diffusion_stage import DiffusionStage
from cascade.imaging.writing import contact_sheet, save_png
from cascade.pipeline import CascadePipeline
from cascade.space import Space
from cascade.stage import Run
from cascade.stage_kinds import load_stage
from cascade.vision.encoder import VisionFacts
from cascade.vision.encoders import vision_encoder_of
from cascade.vision.tower import Tower

SPLITS = ("heldout", "unseen")
READ_PX = 256
BATCH = 128


def read_captions(data: Path, split: str, prior: DiffusionStage) -> tuple[Tensor, list[str]]:
    """The embeddings (N, E) of the pictures of a split, and the first caption of each."""
    source = open_source(f"{data}/{split}-*.tar")
    images = embed_images(source, prior.space, default_cache().with_name("encoded"))
    places = range(len(source))
    embeddings = torch.stack([images.values(place) for place in places])
    captions = [source.labels(place)["captions"].split("\n")[0] for place in places]
    return as_vectors(embeddings), captions


def as_vectors(embeddings: Tensor) -> Tensor:
    """Embeddings (N, E, 1, 1) as vectors (N, E); those of pictures have a length of 1."""
    vectors = embeddings.flatten(1)
    return vectors / vectors.shape[1] ** 0.5


def sampled(prior: DiffusionStage, captions: list[str]) -> Tensor:
    """The embeddings (N, E) that the prior makes of captions."""
    parts = []
    for first in range(0, len(captions), BATCH):
        part = captions[first : first + BATCH]
        seeds = range(first, first + len(part))
        parts.append(prior.run(seeds, Inputs({"prompt": part}), run=Run(stream="stage prior")))
    return as_vectors(torch.cat(parts))


def rivals(captions: list[str]) -> Tensor:
    """For each caption the place of another one, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(captions), generator=generator)
    shifted = order.roll(1)
    other = torch.empty_like(order)
    other[order] = shifted
    return other


def line(name: str, made: Tensor, true: Tensor, other: Tensor) -> str:
    """The cosines of embeddings (N, E) with the true ones and with those of other captions."""
    own, shuffled = F.cosine_similarity(made, true), F.cosine_similarity(made, true[other])
    difference = own - shuffled
    error = difference.std() / len(own) ** 0.5
    return (
        f"{name}: own {own.mean():.3f}, another caption's {shuffled.mean():.3f}, difference "
        f"{difference.mean():.3f} = {difference.mean() / error:.0f} standard errors, N {len(own)}"
    )


def measure_prior(args: argparse.Namespace) -> None:
    """Print the cosines of the prior, of the text half of the tower, and of the mean embedding."""
    run = args.prior / "stage"
    prior = load_stage(run if run.is_dir() else args.prior)
    assert isinstance(prior, DiffusionStage)
    space = prior.space
    facts = VisionFacts(space.encoder_name, space.encoder, space.channels)
    tower = vision_encoder_of(facts)
    for split in SPLITS:
        true, captions = read_captions(args.data, split, prior)
        other, start_s = rivals(captions), time.perf_counter()
        for guidance in args.guidance:
            settings = prior.sampling.changed(guidance=guidance)
            made = sampled(prior.with_sampling(settings), captions)
            print(line(f"{split}, prior at guidance {guidance:g}", made, true, other), flush=True)
        seconds = (time.perf_counter() - start_s) / len(captions) / len(args.guidance)
        print(
            f"{split}: {1000 * seconds:.1f} ms per embedding, length {made.norm(dim=1).mean():.3f}"
        )
        if isinstance(tower, Tower):
            print(line(f"{split}, text half of the tower", tower.text_directions(captions), true,
                       other))  # fmt: skip
        mean = true.mean(dim=0, keepdim=True).expand_as(true)
        print(line(f"{split}, mean of all images", mean, true, other), flush=True)


def draw_sheet(args: argparse.Namespace) -> None:
    """Draw a row per picture: the picture, and variations of it; print how near they are to it."""
    pipeline = CascadePipeline.from_pretrained(args.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    encoder = vision_encoder_of(encoder_facts(pipeline))
    side = pipeline.stages.last.space.size[0]
    contract = Contract(Space(size_px=READ_PX))
    images = TrainingImages(open_source(f"{args.data}/{args.split}-*.tar"), contract, flip=())
    step = max(1, len(images.source) // args.rows)
    shown, true, made = [], [], []
    for place in range(0, step * args.rows, step):
        picture = as_float(images.sized(place).image)[None]
        options = {"guidance": args.guidance[0], "output_type": "pt", "seed": 0}
        result = pipeline(like=picture, num_images=args.columns, **options)
        shown += [F.interpolate(picture, size=(side, side), mode="area"), result.images]
        true.append(encoder.encode(picture).expand(args.columns, -1, -1, -1))
        made.append(encoder.encode(result.images))
    save_png(contact_sheet(torch.cat(shown), columns=args.columns + 1), args.out, {})
    own = as_vectors(torch.cat(true))
    others = torch.arange(len(own)).roll(args.columns)  # those of the row before
    print(line(f"{args.split}, variations", as_vectors(torch.cat(made)), own, others))
    print(args.out)


def encoder_facts(pipeline: CascadePipeline) -> VisionFacts:
    """The encoder whose embeddings the decoder takes."""
    conditions = [each for contract in pipeline.stages.contracts for each in contract.conditions]
    return next(each.encoder_facts for each in conditions if isinstance(each, ImageEmbedding))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("action", choices=("prior", "sheet"))
    add("--data", type=Path, required=True, help="folder of the emoji data set")
    add("--prior", type=Path, help="folder of the prior or of its run")
    add("--pipeline", help="a pipeline or a decoder")
    add("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0])
    add("--split", default="heldout", help="whose images are varied (default heldout)")
    add("--rows", type=int, default=8)
    add("--columns", type=int, default=5)
    add("--out", type=Path, default=Path("sheet.png"))
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    {"prior": measure_prior, "sheet": draw_sheet}[arguments.action](arguments)
