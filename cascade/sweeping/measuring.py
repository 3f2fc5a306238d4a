"""Measures candidates round by round, and keeps their images on disk so that a sweep can resume.

Shapes: M real images, F features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from torch import Tensor

from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.progress import NamedProgress
from cascade.sweeping.candidate_images import CandidateImages, load_candidate_images
from cascade.sweeping.candidates import Candidate
from cascade.sweeping.outcomes import Outcome, badness_of, scores_of
from cascade.sweeping.rounds import Round
from cascade.sweeping.runner import NotFiniteError, Runner


@final
class ImageStore:
    """The images of candidates, on disk; missing ones are made.

    Args:
        runner: makes missing images.
        folder: folder of the files; the name of each is a hash of all that its images depend on.
        basis: texts with everything that the images depend on besides the settings.
    """

    def __init__(self, runner: Runner, folder: Path, basis: Sequence[str]) -> None:
        self._runner = runner
        self._folder = folder
        self._basis = basis

    def images(self, candidate: Candidate, count: int) -> CandidateImages:
        """The first `count` images of a candidate.

        Raises:
            OutputError: if a file cannot be written.
            NotFiniteError: if a value of an image is not finite.
        """
        file = self._file(candidate)
        images = load_candidate_images(file)
        while images is None or len(images) < count:
            first = 0 if images is None else len(images)
            places = range(first, min(first + self._runner.at_a_time, count))
            more = self._runner.run(candidate.settings, places)
            images = more if images is None else images.followed_by(more)
            images.save(file)
        return images.first(count)

    def _file(self, candidate: Candidate) -> Path:
        settings = {name: each.to_dict() for name, each in candidate.settings.items()}
        key = hashlib.sha256("\n".join([*self._basis, json.dumps(settings)]).encode()).hexdigest()
        return self._folder / f"{key[:32]}.safetensors"


@final
@dataclass(frozen=True, kw_only=True)
class CandidateMeasurer:
    """Measures candidates, first all of them and then the best.

    Attributes:
        runner: makes the images of candidates.
        store: keeps the images on disk.
        extractor: computes the features of the images.
        by: name of the figure that decides.
        progress: called while candidates are measured.
        failures: one sentence for each candidate that could not be measured.
    """

    runner: Runner
    store: ImageStore
    extractor: FeatureExtractor
    by: str
    progress: NamedProgress
    failures: list[str] = field(default_factory=list)

    def measure_all(
        self, candidates: Sequence[Candidate], rounds: Sequence[Round]
    ) -> list[Outcome]:
        """The outcome of every candidate that could be measured, from the last of its rounds."""
        real_features = self.runner.real_features(self.progress)
        outcomes: dict[int, Outcome] = {}
        places = list(range(len(candidates)))
        for number, each in enumerate(rounds):
            if number > 0:
                best = sorted(places, key=lambda place: badness_of(outcomes[place], self.by))
                places = sorted(best[: each.candidates])  # in their order, to run stages once
            name = "settings" if len(rounds) == 1 else f"round {number + 1} of {len(rounds)}"
            for finished, place in enumerate(places):
                self.progress(name, finished, len(places))
                earlier = outcomes.pop(place, None)
                outcome = self._measure(candidates[place], each.images, earlier, real_features)
                outcomes |= {} if outcome is None else {place: outcome}
            self.progress(name, len(places), len(places))
            places = [place for place in places if place in outcomes]
        return list(outcomes.values())

    def _measure(
        self,
        candidate: Candidate,
        count: int,
        earlier: Outcome | None,
        real_features: Tensor | None,
    ) -> Outcome | None:
        """The outcome of a candidate on `count` images; None if its images are not finite."""
        try:
            images = self.store.images(candidate, count)
        except NotFiniteError as error:
            self.failures.append(f"{candidate.text()}: left out, since {error}")
            return None
        runner = self.runner
        scores = scores_of(
            images, real_features, self.extractor, runner.reference, runner.judge, runner.files
        )
        return Outcome(
            candidate=candidate,
            scores=scores,
            first_scores=scores if earlier is None else earlier.first_scores,
            seconds_per_image=float(images.seconds.median()),
            samples=images.samples,
        )
