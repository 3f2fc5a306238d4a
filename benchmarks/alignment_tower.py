"""Train a tower that finds the caption of an emoji, and measure it on images that it never saw.

    python benchmarks/datasets/emoji.py --out data/emoji
    python benchmarks/datasets/emoji.py --out data/emoji-judge --styles emojione,noto-v1
    python benchmarks/alignment_tower.py --data data/emoji --others data/emoji-judge --out out/tower
    cascade evaluate PIPELINE --data "data/emoji/heldout-*.tar" --alignment out/tower

The tower judges what a generator draws, so it must not know the images that it judges. It is
trained on

- two further sets, `emojione` and `noto-v1`, which no generator is trained on. They draw most of
  the emoji, those that are held out from the generator among them;
- half of the emoji of `train-*.tar`, chosen by a hash of the code, so that it learns the names of
  the styles. Their keys are in the tower, and `cascade evaluate` leaves these images out.

The other half of `train`, and all of `validation`, `heldout` and `unseen`, are new to it as
images. The defaults were chosen on `validation-*.tar`.

A tower that steers a generator, as the image embedding of unCLIP does, must be another one: its
generator draws what the tower looks for. `--steer` trains such a tower on all of `train-*.tar` and
on nothing else. It sees every image at 64 px first, the size of the stage that it steers:

    python benchmarks/alignment_tower.py --steer --data data/emoji --out out/emoji-tower

Shapes: N images, V views of each, F features, P width of a text's pooled vector.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from cascade.contract import Contract
from cascade.data.source import ImageSource
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.evaluation.alignment.captions import Captions
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.alignment.tower import AlignmentTower
from cascade.imaging.writing import from_uint8
from cascade.resizing import quantise, resize
from cascade.space import Space
from cascade.text.encoder import TextEncoder
from cascade.text.encoders import MINILM, find_encoder
from cascade.vision.efficientnet import EfficientNetLite, load_efficientnet
from cascade.vision.tower import MAX_TOKENS, Tower, TowerFacts, TowerHead, tower_features

READ_PX = 256
STYLE_WORDS = {
    "fluent-3d": "fluent 3d",
    "fluent": "fluent",
    "noto": "noto",
    "twemoji": "twemoji",
    "fluent-flat": "fluent flat",
}
JUDGED_SHARE = 0.5
SMALL_PX = (64, 96, 128)  # sides to which half of the augmented views are downscaled first
SCALES = (0.8, 1.1)
MOST_SHIFT_PX = 24
READ_AT_A_TIME = 32
TEST_SPLITS = ("validation", "heldout", "unseen")


@dataclass(frozen=True)
class Purpose:
    """What a tower is for, and what it sees of a picture.

    Attributes:
        name: of the tower.
        size_px: side of what EfficientNet sees; 160 px has half of the cost of 224 px.
        seen_px: side to which pictures are downscaled before that; None for not at all.
    """

    name: str
    size_px: int
    seen_px: int | None = None

    def fitted(self, image: Tensor) -> Tensor:
        """A picture (3, H, W) as EfficientNet sees it."""
        batch = image[None]
        if self.seen_px is not None:
            batch = quantise(resize(batch, (self.seen_px, self.seen_px), "bicubic"))
        return resize(batch, (self.size_px, self.size_px), "bicubic")[0].clamp(-1, 1)


JUDGING = Purpose("EmojiTower", size_px=160)
STEERING = Purpose("emoji-tower", size_px=128, seen_px=64)


@dataclass(frozen=True)
class Pictures:
    """Pictures as the tower sees them.

    Attributes:
        features: (N, V, F) float32; view 0 is the picture itself.
        phrasings: the phrasings of each caption.
        labels: the annotations of each picture.
        keys: the name of each picture.
    """

    features: Tensor
    phrasings: list[tuple[str, ...]]
    labels: list[dict[str, str]]
    keys: list[str]

    def joined(self, other: Pictures) -> Pictures:
        """These pictures and others."""
        return Pictures(
            torch.cat([self.features, other.features]),
            self.phrasings + other.phrasings,
            self.labels + other.labels,
            self.keys + other.keys,
        )


# ---- pictures -----------------------------------------------------------------------------------


def is_for_the_tower(code: str) -> bool:
    """Whether the training pictures of an emoji are the tower's."""
    digest = hashlib.sha256(f"judge {code}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < JUDGED_SHARE


def augmented(image: Tensor, purpose: Purpose, generator: torch.Generator) -> Tensor:
    """Scale, shift and often blur a picture (3, H, W) on white, as a small model may draw it."""
    draws = torch.rand(5, generator=generator).tolist()
    side = round(READ_PX * (SCALES[0] + draws[0] * (SCALES[1] - SCALES[0])))
    centre = (READ_PX - side) // 2
    left, top = (centre + round((2 * each - 1) * MOST_SHIFT_PX) for each in draws[1:3])
    scaled = resize(image[None], (side, side), "bicubic")
    far = READ_PX - side
    shifted = F.pad(scaled, (left, far - left, top, far - top), value=1.0)  # negative: cropped
    if draws[3] < 0.5:
        small = SMALL_PX[int(draws[4] * len(SMALL_PX))]
        shifted = resize(shifted, (small, small), "bicubic")
    return purpose.fitted(shifted[0])


def views_of(
    image: Tensor, purpose: Purpose, count: int, generator: torch.Generator
) -> list[Tensor]:
    """A picture and augmented views of it at the tower's size; with a count of 0, it at 64 px."""
    plain = purpose.fitted(image)
    if count > 0:
        return [plain, *(augmented(image, purpose, generator) for _ in range(count))]
    small = resize(image[None], (SMALL_PX[0], SMALL_PX[0]), "bicubic")
    return [plain, purpose.fitted(small[0])]


@torch.no_grad()
def read_features(
    source: ImageSource,
    places: Sequence[int],
    network: EfficientNetLite,
    purpose: Purpose,
    augmentations: int,
) -> Tensor:
    """Compute the features (N, V, F) float16 of pictures; see `views_of` for the V views."""
    images = TrainingImages(source, Contract(Space(size_px=READ_PX)), flip=(), cache_mib=0)
    generator = torch.Generator().manual_seed(0)
    parts = []
    for first in range(0, len(places), READ_AT_A_TIME):
        views = [
            torch.stack(
                views_of(from_uint8(images.sized(place).image), purpose, augmentations, generator)
            )
            for place in places[first : first + READ_AT_A_TIME]
        ]
        batch = torch.stack(views)  # (B, V, 3, S, S)
        pixels = batch.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        parts.append(tower_features(network, pixels).unflatten(0, batch.shape[:2]).half())
        print(f"\r{first + len(views)} of {len(places)} images", end="", flush=True)
    print()
    return torch.cat(parts)


def read_pictures(
    pattern: str,
    network: EfficientNetLite,
    cache: Path,
    purpose: Purpose,
    augmentations: int,
    *,
    all_codes: bool,
) -> Pictures:
    """Read pictures, with features from the cache if it has them."""
    source = open_source(pattern)
    places = [
        place
        for place in range(len(source))
        if all_codes or is_for_the_tower(source.labels(place)["code"])
    ]
    keys = [source.key(place) for place in places]
    basis = "\n".join([pattern, str(purpose), str(augmentations), *keys])
    file = cache / f"{hashlib.sha256(basis.encode()).hexdigest()[:16]}.safetensors"
    if not file.is_file():
        print(pattern)
        cache.mkdir(parents=True, exist_ok=True)
        features = read_features(source, places, network, purpose, augmentations)
        save_file({"features": features}, file)
    labels = [source.labels(place) for place in places]
    phrasings = [_phrasings(each) for each in labels]
    return Pictures(load_file(file)["features"].float(), phrasings, labels, keys)


def _phrasings(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The phrasings of a caption, without those that name a style which no prompt names."""
    other = labels["style"].replace("-", " ") if labels["style"] not in STYLE_WORDS else ""
    return tuple(each for each in labels["captions"].split("\n") if not other or other not in each)


# ---- training -----------------------------------------------------------------------------------


class TextTable:
    """The pooled vectors of all phrasings, computed once."""

    def __init__(self, encoder: TextEncoder, texts: Sequence[str]) -> None:
        unique = list(dict.fromkeys(texts))
        encoded = encoder.encode(unique, MAX_TOKENS)
        self.pooled = torch.stack([each.pooled for each in encoded]).float()
        self.places = {text: place for place, text in enumerate(unique)}


def contrastive_loss(
    images: Tensor, texts: Tensor, batch: TrainingBatch, temperature: Tensor
) -> Tensor:
    """InfoNCE in both directions; texts that describe an image too are no rivals of its own."""
    logits = images @ texts.T / temperature  # (B, B)
    fits = (batch.named == -1) | (batch.named == batch.styles[:, None])
    fits &= batch.codes == batch.codes[:, None]
    logits = logits.masked_fill(fits.fill_diagonal_(False), -torch.inf)
    target = torch.arange(len(images))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train(pictures: Pictures, table: TextTable, args: argparse.Namespace) -> TowerHead:
    """Train a head."""
    torch.manual_seed(args.seed)
    head = TowerHead(pictures.features.shape[-1], table.pooled.shape[-1], args.width)
    flat = pictures.features.flatten(0, 1)
    head.mean.copy_(flat.mean(dim=0))
    head.spread.copy_(flat.std(dim=0).clamp(min=1e-3))
    log_temperature = torch.nn.Parameter(torch.tensor(0.07).log())
    groups = [
        {"params": head.parameters(), "weight_decay": args.weight_decay},
        {"params": [log_temperature], "weight_decay": 0.0},
    ]
    steps = args.epochs * (len(pictures.keys) // args.batch_size)
    optimiser = torch.optim.AdamW(groups, lr=args.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, steps, pct_start=0.1)
    draw = Draw(pictures, table, args)
    for _ in range(args.epochs):
        for at in draw.epoch():
            batch = draw.batch(at)
            images = head.embed_features(F.dropout(batch.features, args.dropout))
            texts = head.embed_pooled(F.dropout(batch.pooled, args.text_dropout))
            temperature = log_temperature.exp().clamp(min=0.01)
            loss = contrastive_loss(images, texts, batch, temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return head.eval()


@dataclass(frozen=True)
class TrainingBatch:
    """A view of each picture, and a phrasing of its caption.

    Attributes:
        features: (B, F) of the views.
        pooled: (B, P) of the phrasings.
        codes: (B,) int64, which emoji each picture shows.
        styles: (B,) int64, in which style.
        named: (B,) int64, the style that the phrasing names, -1 for none.
    """

    features: Tensor
    pooled: Tensor
    codes: Tensor
    styles: Tensor
    named: Tensor


class Draw:
    """Draws a view and a phrasing of each picture."""

    def __init__(self, pictures: Pictures, table: TextTable, args: argparse.Namespace) -> None:
        self.features, self.pooled = pictures.features, table.pooled
        self.codes, self.styles = (
            _numbers([each[name] for each in pictures.labels]) for name in ("code", "style")
        )
        self.phrasings = [
            [(table.places[text], _names_style(text, labels["style"])) for text in phrasings]
            for phrasings, labels in zip(pictures.phrasings, pictures.labels, strict=True)
        ]
        self.batch_size = args.batch_size
        self.generator = torch.Generator().manual_seed(args.seed)

    def epoch(self) -> list[Tensor]:
        """The places of the pictures of each batch."""
        order = torch.randperm(len(self.features), generator=self.generator)
        return [each for each in order.split(self.batch_size) if len(each) == self.batch_size]

    def batch(self, at: Tensor) -> TrainingBatch:
        """Draw views and phrasings of the pictures at these places (B,)."""
        draws = torch.rand(len(at), 2, generator=self.generator)
        views = (draws[:, 0] * self.features.shape[1]).long()
        own = [self.phrasings[place] for place in at.tolist()]
        texts = [
            each[int(float(draw) * len(each))] for each, draw in zip(own, draws[:, 1], strict=True)
        ]
        names_style = torch.tensor([names for _, names in texts])
        return TrainingBatch(
            features=self.features[at, views],
            pooled=self.pooled[[place for place, _ in texts]],
            codes=self.codes[at],
            styles=self.styles[at],
            named=self.styles[at].where(names_style, -1),
        )


def _numbers(values: Sequence[str]) -> Tensor:
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return torch.tensor([places[value] for value in values])


def _names_style(text: str, style: str) -> bool:
    return style in STYLE_WORDS and STYLE_WORDS[style] in text


# ---- measuring ----------------------------------------------------------------------------------


def with_style(phrasings: Sequence[str], style: str) -> tuple[str, ...]:
    """The phrasings, one that names the style first."""
    named = [each for each in phrasings if _names_style(each, style)]
    return tuple(dict.fromkeys([*named[:1], *phrasings]))


def judge_of(pictures: Pictures, tower: Tower, *, styles: bool) -> AlignmentJudge:
    """A judge whose captions name the style, or are the plain names."""
    phrasings = [
        with_style(each, labels["style"]) if styles else each
        for each, labels in zip(pictures.phrasings, pictures.labels, strict=True)
    ]
    return AlignmentJudge(
        AlignmentTower(tower), Captions(phrasings, pictures.labels, pictures.keys)
    )


def measure(pictures: Pictures, tower: Tower, head: TowerHead) -> list[str]:
    """A line of figures for plain and for styled captions, at full size and at 64 px."""
    lines = []
    for styles in (False, True):
        judge = judge_of(pictures, tower, styles=styles)
        for view, name in enumerate((f"{READ_PX} px", f"{SMALL_PX[0]} px")):
            with torch.no_grad():
                embeddings = head.embed_features(pictures.features[:, view])
            figures = judge.figures(embeddings, range(len(pictures.keys)))
            values = {key: each[~each.isnan()].mean() for key, each in figures.items()}
            text = ", ".join(f"{key} {float(v):.3f}" for key, v in values.items() if v == v)
            kind = "captions with the style" if styles else "plain names"
            lines.append(f"{kind}, {name}: {text}, among {judge.choices}")
    return lines


def read_all(
    args: argparse.Namespace, network: EfficientNetLite
) -> tuple[Pictures, Pictures | None, dict[str, Pictures]]:
    """The training pictures of the data set and of the other sets, and those for tests by split."""
    purpose = STEERING if args.steer else JUDGING

    def read(pattern: str, views: int, *, all_codes: bool = True) -> Pictures:
        cache = args.out / "features"
        return read_pictures(pattern, network, cache, purpose, views, all_codes=all_codes)

    own = read(f"{args.data}/train-*.tar", args.views, all_codes=args.steer)
    others = None if args.steer else read(f"{args.others}/*.tar", args.views)
    return own, others, {each: read(f"{args.data}/{each}-*.tar", 0) for each in TEST_SPLITS}


def facts_of(args: argparse.Namespace, own: Pictures, others: Pictures | None) -> TowerFacts:
    """What the folder of the tower says about it."""
    pictures = f"{len(own.keys)} of all emoji in the styles of the training shards"
    if others is not None:
        pictures = (
            f"{len(others.keys)} images of emojione and noto-v1, and {len(own.keys)} of half of "
            "the emoji in the styles of the training shards"
        )
    purpose = STEERING if args.steer else JUDGING
    return TowerFacts(
        name=purpose.name,
        encoder=find_encoder(MINILM).facts,
        size_px=purpose.size_px,
        seen_px=purpose.seen_px,
        width=args.width,
        training=f"{pictures}; see benchmarks/alignment_tower.py",
        trained_on=tuple(sorted(own.keys)),
        contrasts={"style": STYLE_WORDS},
    )


def main() -> None:
    """Train a tower, print its figures and save it."""
    args = parse_arguments()
    torch.set_num_threads(1)
    start_s = time.perf_counter()
    network = load_efficientnet("lite0").to(memory_format=torch.channels_last)
    own, others, tests = read_all(args, network)
    trained = own if others is None else own.joined(others)
    encoder = find_encoder(MINILM)
    table = TextTable(encoder, [text for each in trained.phrasings for text in each])
    print(f"features and texts after {time.perf_counter() - start_s:.0f} s", flush=True)
    head = train(trained, table, args)
    tower = Tower(facts_of(args, own, others), head, network)
    tower.write(args.out)
    for name, pictures in tests.items():
        for line in measure(pictures, tower, head):
            print(f"{name}: {line}", flush=True)
    print(f"{args.out}: done after {time.perf_counter() - start_s:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the emoji data set")
    add("--others", type=Path, help="folder of the sets emojione and noto-v1")
    add(
        "--steer", action="store_true", help="train a tower that steers, instead of one that judges"
    )
    add("--out", type=Path, required=True, help="folder of the tower")
    add("--views", type=int, default=1, help="augmented views of each training image (default 1)")
    add("--epochs", type=int, default=60)
    add("--batch-size", type=int, default=256)
    add("--lr", type=float, default=1e-3)
    add("--weight-decay", type=float, default=0.5)
    add("--width", type=int, default=256, help="of an embedding (default 256)")
    add("--dropout", type=float, default=0.4, help="of the features (default 0.4)")
    add("--text-dropout", type=float, default=0.1, help="of the pooled vectors of texts (0.1)")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.steer == (args.others is not None):
        parser.error("give --others for a tower that judges, or --steer for one that steers")
    return args


if __name__ == "__main__":
    main()
