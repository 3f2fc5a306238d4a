"""What a request comes to before the work begins: its pictures, its model and its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.bulk.destination import destination_of
from cascade.bulk.earlier import EarlierResults
from cascade.bulk.jobs import Plan, is_file_name, plan_jobs
from cascade.bulk.ledger import ledger_file
from cascade.bulk.method import Method
from cascade.bulk.progress import Note, ProgressUpdate
from cascade.bulk.remarks import model_remark
from cascade.bulk.request import Request, check_options, check_shards, check_store
from cascade.bulk.request_model import RequestModel
from cascade.bulk.searching import find_pictures
from cascade.bulk.shards import plan_shards
from cascade.bulk.work import Bulk
from cascade.chain_settings import DIAL, sampling_of, setting_changes
from cascade.data.shard_index import ShardImage
from cascade.errors import ContractError, OutputError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.rasters.reading import RASTER_SUFFIXES
from cascade.restoration.expected_error import ExpectedError, How
from cascade.sampling.per_stage import ALL
from cascade.saving.atomic import check_folder_can_be_written, check_writable_folder
from cascade.saving.pipelines import model_record
from cascade.stage import Stage, stages_digest

ALONE = "results go to {name}; if several machines write there, give each its own part"
OnProgress = Callable[[ProgressUpdate], None]


class Preparation:
    """The pictures and jobs of a request, before its model is loaded.

    Args:
        command: `upscale`, `colourise`, `restore` or `edit`.
        request: the user's request.
        seed: seed of the first result of a picture.
        mask: file of the mask of all pictures, which is not one of them; None for none.

    Raises:
        CascadeError: if the inputs do not fit the place of the results.
    """

    def __init__(self, command: str, request: Request, seed: int, mask: Path | None = None) -> None:
        self.command = command
        self.request = request
        self.model = RequestModel(request)
        self.reads_bands = self.model.takes_bands
        writes_bands = self.model.makes_bands
        self.has_bands = self.reads_bands or writes_bands
        check_options(request, bands=self.has_bands)
        as_file = is_file_name(request.out, request.inputs, bands=writes_bands)
        check_store(request)
        self.destination, self.out = destination_of(request.out, as_file=as_file)
        self.folder = None if as_file else self.out
        self._check_part()
        if self.folder is not None and not request.dry_run:
            self.destination.fetch_ledger(ledger_file(self.folder, command, request.part))
        suffixes = RASTER_SUFFIXES if self.reads_bands else IMAGE_SUFFIXES
        self.inputs = request.listing or find_pictures(
            request.inputs,
            results=self.folder,
            stored_results=None if as_file else self.destination.address,
            suffixes=suffixes,
            part=request.part,
            mask=mask,
        )
        self.seed = seed
        self.plan = self._plan(as_file, writes_bands)
        self.destination.check_apart(self.plan)
        self.notes = [self.inputs.left_out.note()] if self.inputs.left_out else []
        self.notes += self.plan.notes
        if self.destination.address and self.folder and request.part is None:
            self.notes.append(Note(ALONE.format(name=self.destination.name(self.folder))))

    def _check_part(self) -> None:
        """Check that a part of the inputs can have its results in the folder.

        Raises:
            OutputError: if there is no folder, or it holds parts of another number of parts.
        """
        part = self.request.part
        if part is None or (self.folder is None and part.count == 1):
            return
        name = self.destination.name(self.out)
        if self.folder is None:
            raise OutputError(
                f"{name} is the file of a single result, but part {part} of the inputs needs a "
                "folder; name one, or take part 1/1, which is all."
            )
        counts = {each.count for each in self.destination.parts(self.folder, self.command)}
        if counts - {part.count}:
            raise OutputError(
                f"{name} holds results of parts of {min(counts)}, so part {part} does not belong "
                "there; choose another folder or the same number of parts."
            )

    def _plan(self, as_file: bool, bands: bool) -> Plan:
        """List the results to make, in files and in shards."""
        request, seed = self.request, self.seed
        shards, notes = [], []
        if self.inputs.shards:
            check_shards(request)
            shards, notes = plan_shards(
                self.inputs.shards,
                self.out,
                image_format=request.image_format,
                seed=seed,
                pages=request.pages,
                bands=bands,
            )
        earlier = EarlierResults(self.folder, self.destination, self.command, request.part)
        plan = plan_jobs(
            [each for each in self.inputs.pictures if not isinstance(each.image, ShardImage)],
            self.out,
            as_file=as_file,
            image_format=request.image_format,
            seeds=[seed] if request.map else range(seed, seed + request.seeds),
            compare=request.compare,
            pages=request.pages,
            is_result_of=earlier.made_from,
            bands=bands,
            doubt=request.map,
        )
        jobs = [*plan.jobs, *(job for shard in shards for job in shard.jobs)]
        return replace(plan, jobs=jobs, shards=shards, notes=[*plan.notes, *notes])

    def load_stages(self, select: Callable[[Sequence[Stage]], list[Stage]]) -> dict[str, Stage]:
        """Load the stages of the model by name, onto the device, and apply the user's settings.

        Args:
            select: finds the stages that run.

        Raises:
            ContractError: if settings do not fit, or are for a stage that does not run.
        """
        stages = dict(self.model.load().stages.items())
        overrides = self.request.overrides
        overrides.check(list(stages))
        selected = select(list(stages.values()))
        running = {name: stage for name, stage in stages.items() if stage in selected}
        self._check_that_settings_are_read(running)
        changed = {
            name: stage.with_sampling(overrides.apply(name, stage.sampling))
            for name, stage in running.items()
        }
        if remark := model_remark(model_record(self.request.model)["model"], changed):
            self.notes.append(Note(remark))
        return {**stages, **changed}

    def expected_error(
        self, running: Sequence[Stage], how: How, *, has_words: bool = False
    ) -> ExpectedError | None:
        """What the standard deviation over seeds says about errors, if it is asked for and known.

        Args:
            running: the stages that run, with their sampling settings.
            how: what is done to each picture.
            has_words: whether prompts or labels decide the results too.
        """
        saved = self.model.load().stages.expected_error
        if saved is None or not self.request.map:
            return None
        is_plain = self.request.range is None and not has_words
        holds = is_plain and saved.holds_for(running, self.request.seeds, how)
        if remark := saved.remark if holds else saved.elsewhere:
            self.notes.append(Note(remark))
        return saved if holds else None

    def _check_that_settings_are_read(self, running: Mapping[str, Stage]) -> None:
        for stage, settings in self.request.overrides.values.items():
            if stage not in (ALL, *running) and settings:
                raise ContractError(
                    f"{', '.join(f'{stage}.{name}' for name in settings)}: stage {stage!r} does "
                    f"not run in {self.command}; its stages: {', '.join(running)}."
                )
        of_all = self.request.overrides.values.get(ALL, {})
        if DIAL in of_all and not any(each.contract.has_dial for each in running.values()):
            raise ContractError(
                f"{DIAL} {of_all[DIAL]:g} is for models that measure noise and compression, but "
                f"{model_record(self.request.model)['model']} does not; leave it out."
            )

    def settings(self, stages: Mapping[str, Stage], running: Sequence[Stage]) -> dict[str, Any]:
        """The settings to record in results: command, model, and sampling of the running stages.

        `changed` lists those that the model does not have by itself.
        """
        sampling = sampling_of((n, stage) for n, stage in stages.items() if stage in running)
        own = sampling_of(self.model.load().stages.items())
        truncated = self.request.truncated
        return {
            "command": self.command,
            "version": __version__,
            **model_record(self.request.model, self.request.adapters),
            "weights": stages_digest(running),
            "stages": sampling,
            "changed": setting_changes(own, sampling),
            **({} if truncated == "refuse" else {"truncated": truncated}),
            **({} if self.request.metadata else {"metadata": False}),
            **({} if (signer := self.request.signer) is None else {"signer": signer.fingerprint}),
        }

    def bulk(self, method: Method, on_progress: OnProgress | None) -> Bulk:
        """Make the loop over all jobs; create the folder of the results, except for a dry run."""
        folder = self.folder or self.out.parent
        if self.request.dry_run:
            check_folder_can_be_written(folder)
        else:
            check_writable_folder(folder)
        return Bulk(
            self.plan,
            method.over_seeds(self.request.seeds) if self.request.map else method,
            self.folder,
            destination=self.destination,
            inputs=self.inputs,
            choices={
                "seed": self.seed,
                "results_per_picture": 1 if self.request.map else self.request.seeds,
                "format": self.request.image_format,
                "pages": self.request.pages,
            },
            notes=self.notes,
            on_progress=on_progress,
            dry_run=self.request.dry_run,
        )
