"""The figures of a set of images beside a set of real ones."""

from __future__ import annotations

from typing import Any

from cascade.evaluation.coverage import (
    density_coverage,
    diversity,
    inception_score,
    nearest_neighbours,
    precision_recall,
)
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.figures import Score
from cascade.evaluation.image_set import ImageSet
from cascade.evaluation.intervals import mean_estimate
from cascade.evaluation.set_distances import frechet_estimate, kernel_estimate

FEWEST_FOR_COVERAGE = 6


def distance_scores(
    extractor: FeatureExtractor, images: ImageSet, real: ImageSet, reference: str
) -> list[Score]:
    """Fréchet distance and KID, with intervals.

    Args:
        extractor: of the features of both sets.
        images: of samples; at least 2 images.
        real: the same.
        reference: the real ones in words, such as `held-out pictures`.
    """
    basis = _basis(extractor, images, real, reference)
    pair = images.features.double(), real.features.double()
    return [
        Score(name=name, better="lower", **estimate._asdict(), **basis)
        for name, estimate in (
            (f"FD-{extractor.name}", frechet_estimate(*pair)),
            (f"KID-{extractor.name} x1000", kernel_estimate(*pair)),
        )
    ]


def coverage_scores(
    extractor: FeatureExtractor, images: ImageSet, real: ImageSet, reference: str
) -> list[Score]:
    """Precision, recall, density, coverage, diversity and, with a classifier, its score.

    The intervals of the first four are those of means over images, with unchanged balls.
    Diversity is left out where all real images are the same.

    Args:
        extractor: of the features of both sets.
        images: of samples; at least 6 images.
        real: the same.
        reference: the real ones in words, such as `held-out pictures`.
    """
    basis = _basis(extractor, images, real, reference)
    alone = basis | {"reference": "", "n_reference": 0}
    shares = precision_recall(images.features, real.features)._asdict()
    shares |= density_coverage(images.features, real.features)._asdict()
    scores = [
        Score(name=name, better="higher", **mean_estimate(values.tolist())._asdict(), **basis)
        for name, values in shares.items()
    ]
    ours, theirs = (diversity(each.features.double()) for each in (images, real))
    if theirs > 0:
        name = "diversity, share of real"
        scores.append(Score(name=name, value=ours / theirs, better="nearer to 1", **basis))
    if images.probabilities is not None:
        value = inception_score(images.probabilities)
        scores.append(Score(name=f"IS-{extractor.name}", value=value, better="higher", **alone))
    return scores


def colour_scores(images: ImageSet, real: ImageSet, reference: str) -> list[Score]:
    """Drift of mean and spread of the channel that drifts most, and colourfulness.

    Above 0 the images are too bright, or have too much contrast, in that channel.
    """
    basis = {"n": len(images), "reference": reference, "n_reference": len(real)}
    drifts = {
        "colour mean drift, 8-bit": images.colour_mean - real.colour_mean,
        "colour spread drift, 8-bit": images.colour_spread - real.colour_spread,
    }
    scores = [
        Score(name=name, value=float(drift[drift.abs().argmax()]), better="nearer to 0", **basis)
        for name, drift in drifts.items()
    ]
    alone = float(images.colourfulness.mean())
    scores.append(Score(name="colourfulness", value=alone, n=len(images)))
    theirs = float(real.colourfulness.mean())
    if theirs > 0:
        scores.append(
            Score(
                name="colourfulness, share of real",
                value=alone / theirs,
                better="nearer to 1",
                **basis,
            )
        )
    return scores


def copy_scores(
    extractor: FeatureExtractor, images: ImageSet, real: ImageSet, training: ImageSet
) -> list[Score]:
    """How near samples come to training pictures, beside how near held-out pictures come to them.

    A share well below 1 means that samples are nearer to training pictures than other real
    pictures of the same kind are: the pipeline repeats what it was trained on.
    """
    basis = _basis(extractor, images, training, "training pictures")
    ours = nearest_neighbours(images.features, training.features).distances.median()
    theirs = nearest_neighbours(real.features, training.features).distances.median()
    scores = [Score(name="distance to nearest training picture", value=float(ours), **basis)]
    if theirs > 0:
        share = float(ours / theirs)
        name = "the same, share of held-out pictures'"
        scores.append(Score(name=name, value=share, better="nearer to 1", **basis))
    return scores


def _basis(
    extractor: FeatureExtractor, images: ImageSet, real: ImageSet, reference: str
) -> dict[str, Any]:
    return {
        "n": len(images),
        "reference": reference,
        "n_reference": len(real),
        "extractor": extractor.name,
        "resizing": extractor.resizing,
    }
