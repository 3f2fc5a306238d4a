"""Counts and logs what happened to the images of a run: broken ones, and remarks about others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from accelerate import Accelerator

from cascade.conditioning.batch import Batch
from cascade.data.broken import BrokenImages
from cascade.data.remark_log import RemarkLog
from cascade.data.training_images import TrainingImages
from cascade.training.processes import all_of, together

logger = logging.getLogger(__name__)


class DataLog:
    """Collects the broken images and remarks of all processes; the main one logs them.

    Args:
        images: the training images.
        accelerator: tells the processes apart.
        broken: images that earlier parts of the run found broken, as `name: reason`.
    """

    def __init__(
        self, images: TrainingImages, accelerator: Accelerator, broken: Sequence[str]
    ) -> None:
        command = images.check_command
        self.broken = BrokenImages(len(images.source), images.max_broken_share, command=command)
        self.broken.add(broken)
        self.remarks = RemarkLog(f"{command} --verbose")
        self._accelerator = accelerator

    def add(self, batch: Batch) -> None:
        """Count what a batch reports; all processes must call it.

        Raises:
            DataError: if too many images are broken.
        """
        broken = all_of(self._accelerator, batch.broken)
        remarks = all_of(self._accelerator, batch.remarks)
        with together():
            self._count_broken(broken)
            self._warn(self.remarks.add(remarks))  # the first of each kind

    def totals(self) -> None:
        """Log how many remarks of each kind there were."""
        self._warn(self.remarks.totals())

    def _count_broken(self, reasons: Sequence[str]) -> None:
        """Log each broken image once; too many of them end the run."""
        known = self.broken.names
        self._warn(
            [
                f"skipping a broken image: {each}"
                for each in dict.fromkeys(reasons)
                if each not in known
            ]
        )
        self.broken.add(reasons)

    def _warn(self, lines: Sequence[str]) -> None:
        if self._accelerator.is_main_process:
            for line in lines:
                logger.warning("%s", line)
