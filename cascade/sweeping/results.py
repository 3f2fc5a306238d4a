"""What a sweep finds: the combinations of settings in order of merit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from cascade.errors import ContractError
from cascade.evaluation.bootstrap import frechet_estimate, kernel_estimate
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.restored import BETTER, CONSISTENCY, LUMINANCE, Distance
from cascade.evaluation.scores import Better, Score, short, text_table, write_json
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.sweeping.axes import Candidate, value_text
from cascade.sweeping.making import COLOURFULNESS, THEIRS
from cascade.sweeping.rounds import Round
from cascade.sweeping.seen import Seen

Preference = Literal["quality", "speed"]
SECONDS = "seconds per image"
SHARE = f"{COLOURFULNESS}, share of real"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One combination and how well it did.

    Attributes:
        candidate: the settings.
        scores: on the images of its last round.
        first_scores: on those of the first round, which all combinations have in common.
        seconds_per_image: wall time, the median: the first image of a run takes longer.
        shown: its first images, (8 or fewer, 3, H, W) uint8.
    """

    candidate: Candidate
    scores: tuple[Score, ...]
    first_scores: tuple[Score, ...]
    seconds_per_image: float
    shown: Tensor


def measure(
    seen: Seen, real: Tensor | None, extractor: FeatureExtractor, reference: str
) -> tuple[Score, ...]:
    """The figures of images.

    Args:
        seen: at least 2 images.
        real: (M, F) features of real pictures; None to take those of the originals.
        extractor: of the features.
        reference: what the real pictures are, in words.
    """
    truth = seen.real_features if real is None else real
    pair = seen.features.double(), truth.double()
    basis: dict[str, Any] = {"n": len(seen), "reference": reference, "n_reference": len(truth)}
    by: dict[str, Any] = {"extractor": extractor.name, "resizing": extractor.resizing}
    scores = [
        Score(name=name, better="lower", **estimate._asdict(), **basis, **by)
        for name, estimate in (
            (f"KID-{extractor.name} x1000", kernel_estimate(*pair)),
            (f"FD-{extractor.name}", frechet_estimate(*pair)),
        )
    ]
    # In an order of its own: a file does not keep that of its tensors.
    for name, values in sorted(seen.values.items(), key=lambda v: (v[0] not in BETTER, v[0])):
        if name not in (COLOURFULNESS, THEIRS):
            value = float(values.mean())
            scores.append(Score(name=name, value=value, better=BETTER.get(name, "lower"), **basis))
    if COLOURFULNESS in seen.values:
        share = float(seen.values[COLOURFULNESS].mean() / seen.values[THEIRS].mean().clamp(1e-6))
        scores.append(Score(name=SHARE, value=share, better="nearer to 1", **basis))
    return tuple(scores)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep found.

    Attributes:
        pipeline: its name.
        data: where the held-out pictures are.
        seed: of the first picture.
        by: the figure that decides, such as `KID`.
        prefer: whether the best combination is the best one, or the fastest of those that cannot
            be told from it.
        rounds: how many combinations were measured on how many images.
        outcomes: best first; those that left early are behind those that stayed.
        today: place of the pipeline's own settings.
        best: place of the combination to take.
        notes: what one must know to read the figures.
        about: command, hardware and versions.
    """

    pipeline: str
    data: str
    seed: int
    by: str
    prefer: Preference
    rounds: Sequence[Round]
    outcomes: Sequence[Outcome]
    today: int
    best: int
    notes: Sequence[str]
    about: Mapping[str, Any]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows: a row for each combination, best first."""
        axes = list(self.outcomes[0].candidate.values)
        heads = [_head(score) for score in self.outcomes[0].scores]
        rows = []
        for place, each in enumerate(self.outcomes):
            values = [value_text(each.candidate.values[axis]) for axis in axes]
            figures = [_text(score, self.by) for score in each.scores]
            marks = {self.best: "best", self.today: "as it is"}
            if self.best == self.today:
                marks = {self.best: "best, as it is"}
            count = str(each.scores[0].n)
            seconds = short(each.seconds_per_image)
            rows.append([marks.get(place, ""), *values, count, *figures, seconds])
        return ["", *axes, "n", *heads, SECONDS], rows

    def lines(self) -> list[str]:
        """The table as text, the best settings, and the notes."""
        head, rows = self.table()
        said = f"best by {self.by}: {self.outcomes[self.best].candidate.text()}"
        return [*text_table(head, rows), "", said, *(f"note: {each}" for each in self.notes)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, without the pictures."""
        return {
            "pipeline": self.pipeline,
            "data": self.data,
            "seed": self.seed,
            "by": self.by,
            "prefer": self.prefer,
            "rounds": [asdict(each) for each in self.rounds],
            "outcomes": [_plain(each) for each in self.outcomes],
            "today": self.today,
            "best": self.best,
            "notes": list(self.notes),
            "about": dict(self.about),
        }

    def save(self, file: Path) -> None:
        """Write the figures as JSON.

        Raises:
            OutputError: if the file cannot be written.
        """
        write_json(self.to_dict(), file)


def _head(score: Score) -> str:
    return f"{score.name}, {score.better}" if score.better else score.name


def _text(score: Score, by: str) -> str:
    return score.text() if _means(by, score.name) else short(score.value)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "values": dict(outcome.candidate.values),
        "settings": {name: asdict(each) for name, each in outcome.candidate.settings.items()},
        "scores": [asdict(each) for each in outcome.scores],
        "seconds_per_image": outcome.seconds_per_image,
    }


def check_figure(
    by: str,
    pipeline: CascadePipeline,
    extractor: FeatureExtractor,
    distances: Mapping[str, Distance],
) -> None:
    """Check that there will be a figure of a name, before work that takes long.

    Raises:
        ContractError: if there will be none.
    """
    first = pipeline.stages[pipeline.stages.names[0]]
    names = [f"KID-{extractor.name}", f"FD-{extractor.name}"]
    if first.contract.takes_image:
        names += [*BETTER, *distances]
    if first.contract.takes == "grey":
        names += [LUMINANCE, SHARE]
    elif first.is_upsampler and first.degradation is None:
        names.append(CONSISTENCY)
    if not any(_means(by, name) for name in names):
        raise ContractError(f"no figure {by!r} of this pipeline; there are: {'; '.join(names)}.")


def _means(by: str, name: str) -> bool:
    return bool(by) and name.lower().startswith(by.lower())


def in_order(
    outcomes: Sequence[Outcome], by: str, own: Mapping[str, SamplingSettings]
) -> list[Outcome]:
    """Best first, and those that were measured on fewer images behind the others.

    Of equal ones the pipeline's own settings come first: without a gain, nothing is to change.
    """
    return sorted(
        outcomes,
        key=lambda each: (-each.scores[0].n, merit(each, by), each.candidate.settings != own),
    )


def merit(outcome: Outcome, by: str) -> float:
    """How far a combination is from perfect by a figure; lower is better."""
    score = find_score(outcome.scores, by)
    ways: dict[Better, float] = {
        "higher": -score.value,
        "nearer to 1": abs(score.value - 1),
        "nearer to 0": abs(score.value),
    }
    return ways.get(score.better, score.value)


def find_score(scores: Sequence[Score], by: str) -> Score:
    """The first figure whose name begins so, in any case; there is one."""
    return next(score for score in scores if _means(by, score.name))


def choose(outcomes: Sequence[Outcome], by: str, prefer: Preference) -> int:
    """Place of the combination to take, of those in order.

    With `speed`, it is the fastest of the last round whose figure lies inside the interval of the
    best one's; where a figure has no interval, inside one per cent of it.
    """
    if prefer == "quality":
        return 0
    best = find_score(outcomes[0].scores, by)
    if best.low is None or best.high is None:
        reach = 0.01 * abs(best.value)
    else:
        reach = (best.high - best.low) / 2
    near = [
        place
        for place, each in enumerate(outcomes)
        if each.scores[0].n == outcomes[0].scores[0].n
        and merit(each, by) <= merit(outcomes[0], by) + reach
    ]
    return min(near, key=lambda place: outcomes[place].seconds_per_image)
