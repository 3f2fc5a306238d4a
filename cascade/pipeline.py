"""CascadePipeline: stages in a chain, from noise or an input image to the last stage's size.

Shapes: B images, C channels, H and W pixels of results, h and w pixels of input images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from cascade.call import CALLBACK_TENSORS, Call, CallOptions, split_fields
from cascade.chain import StageChain
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import LabelsLike, LabelVocabulary
from cascade.diffusion.noise import make_seeds
from cascade.errors import ContractError, WeightsError
from cascade.imaging.exchange import (
    OutputType,
    PictureLike,
    as_output,
    check_output,
    of_each,
    to_tensor,
)
from cascade.imaging.picture import Picture
from cascade.restoration.colouring import Colouring, colourise_image, colourise_picture
from cascade.restoration.upscaling import Upscaling, upscale_image, upscale_picture
from cascade.sampling.settings import Overrides
from cascade.sampling.walk import Progress
from cascade.saving.atomic import atomic_folder
from cascade.saving.components import read_json
from cascade.saving.hub import upload
from cascade.saving.model_card import write_model_card
from cascade.saving.pipelines import INDEX, PIPELINE_ENTRIES, pipeline_folder, write_index
from cascade.stage import Stage
from cascade.tasks.table import find_task

CARD_FOLDER = "this/folder"  # in the examples of a model card

StepEnd = Callable[..., Mapping[str, Any] | None]


@dataclass
class CascadeOutput(BaseOutput):
    """The result of a pipeline call.

    Attributes:
        images: the last stage's images: PIL images, or (B, C, H, W) in [-1, 1] for `pt`, or
            (B, H, W, C) in [0, 1] for `np`, as in diffusers.
        seeds: one whole number per image, which makes the same image again.
        labels: one dictionary per image, from label field to class name.
        settings: each stage's sampling settings, by stage name.
        intermediates: each earlier stage's images by stage name, like `images`; empty unless the
            call keeps them.
    """

    images: Any
    seeds: list[int]
    labels: list[dict[str, str]]
    settings: dict[str, dict[str, Any]]
    intermediates: dict[str, Any]


class CascadePipeline(DiffusionPipeline):
    """A base or a colourising stage and its upsamplers, or any part of such a chain.

    Args:
        stages: the chain of stages; `CascadePipeline.from_stages` makes one from a dictionary.
    """

    _callback_tensor_inputs: ClassVar = list(CALLBACK_TENSORS)

    def __init__(self, stages: StageChain) -> None:
        super().__init__()
        self.register_modules(stages=stages)
        self.stages: StageChain = stages
        self._current_stage: str | None = None
        self._num_timesteps = 0

    @classmethod
    def from_stages(cls, stages: Mapping[str, Stage]) -> CascadePipeline:
        """Chain named stages, first stage first.

        Raises:
            ContractError: if the stages do not join.
        """
        return cls(StageChain(stages))

    @property
    def current_stage(self) -> str | None:
        """Name of the stage that is sampling, for callbacks; None between calls."""
        return self._current_stage

    @property
    def num_timesteps(self) -> int:
        """How many steps the current stage takes, for callbacks."""
        return self._num_timesteps

    def enter(self, stage: str | None, steps: int = 0) -> None:
        """Record which stage is sampling and in how many steps."""
        self._current_stage, self._num_timesteps = stage, steps

    @property
    def labels(self) -> LabelVocabulary | None:
        """The class names of the first class-conditional stage; None if there is no such stage."""
        conditions = (each for _, stage in self.stages.items() for each in stage.conditions)
        classes = next((each.classes for each in conditions if each.classes), None)
        return None if classes is None else LabelVocabulary(classes)

    def with_sampling(self, overrides: Overrides) -> CascadePipeline:
        """Return a pipeline that shares the weights and samples with changed settings.

        Raises:
            ContractError: if the changes do not fit the stages.
        """
        return CascadePipeline(self.stages.with_sampling(overrides))

    def replace_stage(self, name: str, stage: Stage) -> None:
        """Replace a stage by another trained one.

        Raises:
            ContractError: if the new stage does not join its neighbours, or no stage has that name.
        """
        chain = self.stages.replaced(name, stage.to(self.device))
        self.register_modules(stages=chain)

    # ---- sampling -------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        num_images: int = 1,
        *,
        labels: LabelsLike | None = None,
        image: Image.Image | Sequence[Image.Image] | Tensor | None = None,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepEnd | None = None,
        return_dict: bool = True,
        **options: Any,
    ) -> CascadeOutput | tuple[Any]:
        """Make images.

        Args:
            num_images: number of images to make; ignored if there are input images, which make one
                result each.
            labels: for all images, or one per image: `{"class": "cat-face"}` or `"cat-face,noto"`.
                Missing fields are drawn from each image's seed, or left open if there is an input
                image, because nobody knows what it shows.
            image: input images to start from: PIL images, or (B, C, h, w) in [-1, 1].
            seed: whole number for the first image; the others count up from it; default: random.
            seeds: one whole number per image, instead of `seed`.
            output_type: `pil`, `pt` or `np`.
            callback_on_step_end: called as `callback(pipeline, step, timestep, kwargs)` after every
                step; may return a dictionary with a new `x_t`. `kwargs["seeds"]` are the seeds of
                the current batch, and `pipeline.current_stage` is the name of its stage.
            return_dict: whether to return a `CascadeOutput`, or a tuple with the images.
            options: the fields of `CallOptions`, and sampling settings such as `steps`, `sampler`,
                `guidance`, `augmentation_level` or `eta`: one value for all stages, a sequence in
                their order, or a mapping by stage name. Default: the stage's saved settings.

        Raises:
            ContractError: if an argument does not fit the stages.
        """
        check_output(output_type, self.stages.last.space.channels)
        options_of_call, settings = split_fields(CallOptions, options)
        start = None if image is None else to_tensor(image)  # (B, C, h, w)
        seeds = make_seeds(num_images if start is None else len(start), seed, seeds)
        size = None if start is None else (start.shape[-2], start.shape[-1])
        first = self.stages.start(size, options_of_call.start_at)
        run = self.stages.from_stage(first)
        options_of_call.overrides.check(self.stages.names)
        overrides = Overrides.per_stage(self.stages.names, run.names, **settings)
        run = run.with_sampling(options_of_call.overrides.within(run.names).with_later(overrides))
        values = {**options_of_call.inputs}
        for name, value in (("labels", labels), ("image", start)):
            if name in values:
                raise ContractError(f"{name} is an argument of its own; leave it out of inputs.")
            values[name] = value
        inputs = self._inputs(run, values, seeds)
        # diffusers decorates progress_bar in a way that hides its signature
        call = Call(self, options_of_call, inputs, seeds, callback_on_step_end)  # pyright: ignore
        images = call.run(run)
        outputs = {name: as_output(each, output_type) for name, each in images.items()}
        result = outputs.pop(run.names[-1])
        if not return_dict:
            return (result,)
        return CascadeOutput(
            images=result,
            seeds=seeds,
            labels=inputs.get("labels") or [{} for _ in seeds],
            settings={name: stage.sampling.to_dict() for name, stage in run.items()},
            intermediates=outputs,
        )

    def _inputs(self, run: StageChain, values: Mapping[str, Any], seeds: list[int]) -> Inputs:
        """The user's inputs, each read and completed by the first condition that takes it."""
        draw = values.get("image") is None
        completed = {}
        for condition in (each for _, stage in run.items() for each in stage.conditions):
            name = condition.input_name
            if name not in completed:
                completed[name] = condition.completed(values.get(name), seeds, draw=draw)
        for name, value in values.items():
            if value is not None and name not in completed:
                readable = ", ".join(completed) or "none"
                raise ContractError(
                    f"no stage of this pipeline has a condition that reads {name!r}; its inputs: "
                    f"{readable}."
                )
        return Inputs(completed)

    # ---- pictures of any size -------------------------------------------------------------------

    def upscale(
        self,
        image: PictureLike,
        scale: float | None = None,
        *,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Any:
        """Upscale pictures of any size with the upsamplers, in tiles without seams.

        Args:
            image: a PIL image or a list of them, which keep transparency and metadata; a `Picture`,
                which also keeps 16 bits; or a tensor (C, h, w) or (B, C, h, w) in [-1, 1].
            scale: factor for both sides, above 1; default: the factor of all upsamplers together.
            progress: called as `progress(done, total)` from time to time, in units of work.
            settings: `seed`, `tile_px`, `consistent`, `precision`, see
                `cascade.restoration.upscaling.Upscaling`, and sampling settings as in a call.

        Returns:
            The results, of the same type as `image`.

        Raises:
            ContractError: if an argument does not fit the stages.
        """
        upscaling, sampling = split_fields(Upscaling, settings | {"scale": scale})
        stages = self._sampling_with(sampling)
        return of_each(
            image,
            lambda picture: upscale_picture(stages, picture, upscaling, progress=progress),
            lambda tensor: upscale_image(stages, tensor, upscaling, progress=progress),
        )

    def colourise(
        self, image: PictureLike, *, progress: Progress | None = None, **settings: Any
    ) -> Any:
        """Colour pictures of any size with the stage that takes grey, keeping their luminance.

        Args:
            image: grey or colour pictures, of the same types as for `upscale`.
            progress: called as `progress(done, total)` from time to time, in units of work.
            settings: `seed`, `hints` (a PIL image or a `Picture`), `precision`, see
                `cascade.restoration.colouring.Colouring`, and sampling settings as in a call.

        Returns:
            The results, of the same type as `image`.

        Raises:
            ContractError: if an argument does not fit the stages.
        """
        hints = settings.get("hints")
        if isinstance(hints, Image.Image):
            settings["hints"] = Picture.from_pil(hints)
        colouring, sampling = split_fields(Colouring, settings)
        stages = self._sampling_with(sampling)
        return of_each(
            image,
            lambda picture: colourise_picture(stages, picture, colouring, progress=progress),
            lambda tensor: colourise_image(stages, tensor, colouring, progress=progress),
        )

    def _sampling_with(self, settings: Mapping[str, Any]) -> list[Stage]:
        """The stages with the sampling settings of a call."""
        names = self.stages.names
        chain = self.stages.with_sampling(Overrides.per_stage(names, names, **settings))
        return [stage for _, stage in chain.items()]

    # ---- saving and loading ---------------------------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype | None = None,
        card: str | None = None,
        extra_files: Mapping[str, str] | None = None,
        safe_serialization: bool = True,
        **hub: Any,
    ) -> None:
        """Write the pipeline: `model_index.json`, `stages/`, `pipeline.py` and a model card.

        Args:
            save_directory: the pipeline's folder, which is replaced once the new one is complete.
            dtype: type of the written tensors, such as bfloat16 for publishing; default: float32.
            card: text of the model card; default: a description of the stages.
            extra_files: contents of further text files by file name, such as the recipe.
            safe_serialization: must be true; Cascade never pickles.
            hub: `push_to_hub=True` and `repo_id=…` upload the folder afterwards; see `push_to_hub`.

        Raises:
            OutputError: if the folder cannot be written, or the Hub refuses.
        """
        pushed = hub.pop("push_to_hub", False)
        if hub and not pushed:
            raise ContractError(f"save_pretrained has no argument {min(hub)!r}.")
        if not safe_serialization:
            raise WeightsError("weights are written as safetensors only: safe_serialization=True.")
        with atomic_folder(Path(save_directory), owned=PIPELINE_ENTRIES) as temporary:
            self.stages.write(temporary / "stages", dtype=dtype)
            write_index(temporary)
            summaries = {name: stage.summary() for name, stage in self.stages.items()}
            task = find_task(self.stages.contracts)
            usage = None if task is None else task.usage(CARD_FOLDER)
            write_model_card(temporary, summaries, usage, card)
            for name, text in (extra_files or {}).items():
                (temporary / name).write_text(text, encoding="utf-8")
        if pushed:
            upload(Path(save_directory), hub.pop("repo_id", Path(save_directory).name), **hub)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: torch.dtype | None = None,
        card: str | None = None,
        **hub: Any,
    ) -> str:
        """Save the pipeline and upload it, model card included, to the Hugging Face Hub.

        Args:
            repo_id: the repository, such as `user/name`.
            dtype: floating-point type of the uploaded tensors; default: float32.
            card: text of the model card; default: a description of the stages.
            hub: `private`, `token`, `commit_message`, `create_pr`.

        Returns:
            The address of the commit.

        Raises:
            OutputError: if the Hub cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "pipeline", dtype=dtype, card=card)
            return upload(Path(folder) / "pipeline", repo_id, **hub)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> CascadePipeline:
        """Load a bundled pipeline, a saved one, or one from the Hugging Face Hub.

        Args:
            folder: a name such as `photo-x4`, a local folder, or an id such as `user/name`.
            kwargs: `torch_dtype`; for the Hub `revision`, `token`, `cache_dir`,
                `local_files_only`.

        Raises:
            WeightsError: if the pipeline is missing, incomplete or damaged.
            ContractError: if its stages do not join.
        """
        torch_dtype = kwargs.pop("torch_dtype", None)
        local = pipeline_folder(str(folder), **kwargs)
        index = read_json(local / INDEX)
        if index.get("stages") is None:
            raise WeightsError(f"{local} is a diffusers pipeline, but not a Cascade pipeline.")
        return cls(StageChain.from_pretrained(local / "stages", torch_dtype=torch_dtype))
