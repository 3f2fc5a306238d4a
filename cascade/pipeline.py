"""CascadePipeline: stages in a chain, from noise or a given image to the last stage's size.

Shapes: B images, C channels, H and W pixels, F label fields.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from diffusers import DiffusionPipeline
from diffusers import __version__ as diffusers_version
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from cascade.chain import StageChain
from cascade.conditioning.labels import LabelVocabulary
from cascade.devices import Precision
from cascade.errors import ContractError, WeightsError
from cascade.imaging.picture import Picture
from cascade.pipeline_inputs import (
    Labels,
    OutputType,
    PerStage,
    PictureLike,
    as_output,
    choose_labels,
    encode_for,
    made_of,
    make_seeds,
    of_each,
    per_stage,
    to_tensor,
)
from cascade.restoration.colouring import Colouring, colourise_image, colourise_picture
from cascade.restoration.tiled_sampling import Progress
from cascade.restoration.upscaling import Upscaling, upscale_image, upscale_picture
from cascade.sampling.samplers.all import make_sampler
from cascade.sampling.settings import SamplingSettings
from cascade.saving.atomic import atomic_folder
from cascade.saving.components import read_json
from cascade.saving.hub import upload
from cascade.saving.model_card import write_model_card
from cascade.saving.pipelines import INDEX, pipeline_folder
from cascade.stage import Stage

BATCH_PIXELS = 2**18
PIPELINE_ENTRIES = (INDEX, "pipeline.py", "pipeline.yaml", "README.md", "stages")
PIPELINE_FILE = '''"""Where diffusers finds the class of this folder: trust_remote_code=True."""

from cascade import CascadePipeline

__all__ = ["CascadePipeline"]
'''


@dataclass
class CascadeOutput(BaseOutput):
    """What a pipeline gives.

    Attributes:
        images: the last stage's images: PIL images, or (B, C, H, W) in [-1, 1] for `pt`, or
            (B, H, W, C) in [0, 1] for `np`, as in diffusers.
        seeds: of the images, with which each can be made again.
        labels: of the images, by field.
        settings: how each stage sampled, by name.
        intermediates: each earlier stage's images by name, if they were asked for.
    """

    images: Any
    seeds: list[int]
    labels: list[dict[str, str]]
    settings: dict[str, dict[str, Any]]
    intermediates: dict[str, Any]


class CascadePipeline(DiffusionPipeline):
    """A base or a colourising stage and its upsamplers, or any part of such a chain.

    Args:
        stages: the chain; `CascadePipeline.from_stages` makes it from a dictionary.
    """

    _callback_tensor_inputs: ClassVar = ["x_t", "x0"]

    def __init__(self, stages: StageChain) -> None:
        super().__init__()
        self.register_modules(stages=stages)
        self.stages: StageChain = stages
        self._current_stage: str | None = None
        self._num_timesteps = 0

    @classmethod
    def from_stages(cls, stages: Mapping[str, Stage]) -> CascadePipeline:
        """Chain stages by name, first stage first.

        Raises:
            ContractError: if they do not join.
        """
        return cls(StageChain(stages))

    @property
    def current_stage(self) -> str | None:
        """Name of the stage that is sampling, for callbacks."""
        return self._current_stage

    @property
    def num_timesteps(self) -> int:
        """How many steps the current stage takes, for callbacks."""
        return self._num_timesteps

    @property
    def labels(self) -> LabelVocabulary | None:
        """The first class-conditional stage's class names."""
        return next((s.labels for _, s in self.stages.items() if s.labels is not None), None)

    def replace_stage(self, name: str, stage: Stage) -> None:
        """Put another trained stage in one's place.

        Raises:
            ContractError: if it does not join, or there is no stage of that name.
        """
        chain = self.stages.replaced(name, stage.to(self.device))
        self.register_modules(stages=chain)

    # ---- sampling -------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        num_images: int = 1,
        *,
        labels: Labels | str | Sequence[Labels | str] | None = None,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        image: Image.Image | Sequence[Image.Image] | Tensor | None = None,
        start_at: str | None = None,
        sampler: PerStage = None,
        steps: PerStage = None,
        guidance: PerStage = None,
        augmentation_level: PerStage = None,
        batch_size: int | None = None,
        precision: Precision = "auto",
        keep_intermediates: bool = False,
        output_type: OutputType = "pil",
        callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("x_t", "x0"),
        return_dict: bool = True,
    ) -> CascadeOutput | tuple[Any]:
        """Make images.

        Settings are given once for all stages, as a sequence in their order, or by stage name;
        what is not given is as the stage was trained to be sampled.

        Args:
            num_images: how many; given images decide it themselves.
            labels: of all images, or one per image: `{"class": "cat-face"}` or `"cat-face,noto"`.
                Fields that are not given are drawn from each image's seed, or with a given image
                left unknown, since it is not known what it shows.
            seed: of the first image, the others count up from it; default: drawn afresh.
            seeds: one per image, instead.
            image: to start from: PIL images, or (B, C, h, w) in [-1, 1]; of a colour image, a
                colourising stage takes the luminance.
            start_at: the stage that takes `image`; default: the first that takes its size. An
                upsampler takes the size of its contract, a colourising stage all that its network
                can take.
            sampler: `ddim`, `ddpm`, `dpmsolver++`, `unipc`, `heun`, `euler`, …
            steps: timesteps to visit.
            guidance: classifier-free guidance scale.
            augmentation_level: noise on the image that a stage takes.
            batch_size: images at a time, which changes memory and time but not the images;
                default: as many as have 2^18 pixels together.
            precision: `auto`, `fp32` or `bf16`.
            keep_intermediates: whether to return the earlier stages' images too.
            output_type: `pil`, `pt` or `np`.
            callback_on_step_end: called as `callback(pipeline, step, timestep, kwargs)` after every
                step; may return a dictionary with a new `x_t`. `kwargs["seeds"]` are those of the
                images at hand, `pipeline.current_stage` the stage.
            callback_on_step_end_tensor_inputs: which of `x_t` and `x0` are in its `kwargs`.
            return_dict: whether to return a `CascadeOutput`, or a tuple with the images.

        Raises:
            ContractError: if an argument does not fit the stages.
        """
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ContractError(
                f"callbacks can have {self._callback_tensor_inputs}, not {unknown}."
            )
        if output_type not in get_args(OutputType):
            raise ContractError(
                f"output_type must be one of {get_args(OutputType)}, got {output_type!r}."
            )
        given = None if image is None else to_tensor(image)
        count = num_images if given is None else given.shape[0]
        seeds = make_seeds(count, seed, seeds)
        first = self._first_stage(given, start_at)
        settings = self._settings(
            first,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            augmentation_level=augmentation_level,
        )
        chosen = choose_labels(self.labels, labels, seeds, draw=given is None)
        current, intermediates = given, {}
        *_, last = settings
        for name in settings:
            current = self._run_stage(
                name,
                current,
                seeds,
                chosen,
                settings[name],
                batch_size=batch_size,
                precision=precision,
                callback=callback_on_step_end,
                callback_tensors=callback_on_step_end_tensor_inputs,
            )
            if keep_intermediates and name != last:
                intermediates[name] = as_output(current, output_type)
        self._current_stage = None
        assert current is not None
        images = as_output(current, output_type)
        if not return_dict:
            return (images,)
        return CascadeOutput(
            images=images,
            seeds=seeds,
            labels=chosen,
            settings={name: asdict(each) for name, each in settings.items()},
            intermediates=intermediates,
        )

    # ---- pictures of any size -------------------------------------------------------------------

    def upscale(
        self,
        image: PictureLike,
        scale: float | None = None,
        *,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Any:
        """Enlarge pictures of any size by the upsamplers, in tiles without seams.

        Args:
            image: a PIL image or a list of them, which keep transparency and metadata; a `Picture`,
                which also keeps 16 bits; or a tensor (C, h, w) or (B, C, h, w) in [-1, 1].
            scale: factor of both sides, also a fraction; default: that of the upsamplers.
            progress: called as it goes on with how much is done and how much there is.
            settings: `seed`, `steps`, `sampler`, `guidance`, `augmentation_level`, `temperature`,
                `tile_px`, `consistent`, `precision`; see `cascade.restoration.upscaling.Upscaling`.

        Returns:
            The same kind of thing as was given.

        Raises:
            ContractError: if an argument does not fit the stages.
        """
        wanted = made_of(Upscaling, settings | {"scale": scale})
        stages = [stage for _, stage in self.stages.items()]
        return of_each(
            image,
            lambda picture: upscale_picture(stages, picture, wanted, progress=progress),
            lambda tensor: upscale_image(stages, tensor, wanted, progress=progress),
        )

    def colourise(
        self, image: PictureLike, *, progress: Progress | None = None, **settings: Any
    ) -> Any:
        """Colour pictures of any size by the stage that takes grey, keeping their luminance.

        Args:
            image: as for `upscale`, grey or in colour.
            progress: as for `upscale`.
            settings: `seed`, `steps`, `sampler`, `guidance`, `temperature`, `hints` (a PIL image
                or a `Picture`), `precision`; see `cascade.restoration.colouring.Colouring`.

        Returns:
            The same kind of thing as was given.

        Raises:
            ContractError: if an argument does not fit the stages.
        """
        hints = settings.get("hints")
        if isinstance(hints, Image.Image):
            settings["hints"] = Picture.from_pil(hints)
        wanted = made_of(Colouring, settings)
        stages = [stage for _, stage in self.stages.items()]
        return of_each(
            image,
            lambda picture: colourise_picture(stages, picture, wanted, progress=progress),
            lambda tensor: colourise_image(stages, tensor, wanted, progress=progress),
        )

    def _run_stage(
        self,
        name: str,
        image: Tensor | None,
        seeds: list[int],
        labels: list[dict[str, str]],
        settings: SamplingSettings,
        *,
        batch_size: int | None,
        precision: Precision,
        callback: Callable[..., Mapping[str, Any] | None] | None,
        callback_tensors: Sequence[str],
    ) -> Tensor:
        """One stage over all images, a batch at a time: (B, C, H, W) on the CPU."""
        stage = self.stages[name]
        size = batch_size or max(1, BATCH_PIXELS // math.prod(stage.output_size(image)))
        calls = len(
            make_sampler(
                settings.sampler, stage.process, settings.steps, **settings.sampler_options()
            ).timesteps
        )
        batches = [slice(i, i + size) for i in range(0, len(seeds), size)]
        self._current_stage = name
        results = []
        total = len(batches) * calls
        # torch.compiler.disable hides this method's signature from pyright
        with self.progress_bar(total=total) as bar:  # pyright: ignore[reportCallIssue]
            bar.set_description(name)
            for part in batches:

                def on_step(step: int, t: int, tensors: dict[str, Tensor], part: slice = part):
                    bar.update()
                    if callback is None:
                        return None
                    kwargs = {key: tensors[key] for key in callback_tensors}
                    return callback(self, step, t, kwargs | {"seeds": seeds[part]})

                self._num_timesteps = calls
                results.append(
                    stage.sample(
                        seeds[part],
                        labels=encode_for(stage.labels, labels[part]),
                        image=None if image is None else image[part].to(self.device),
                        settings=settings,
                        stream=f"stage {name}",
                        precision=precision,
                        callback=on_step,
                    ).cpu()
                )
        return torch.cat(results)

    def _first_stage(self, image: Tensor | None, start_at: str | None) -> str:
        names = self.stages.names
        if image is None:
            if start_at is not None and start_at != names[0]:
                raise ContractError(f"start_at {start_at!r} needs an image to start from.")
            contract = self.stages[names[0]].contract
            if contract.takes_image:
                raise ContractError(
                    f"the first stage, {names[0]!r}, needs an image to start from: "
                    f"{contract.taken}."
                )
            return names[0]
        height, width = image.shape[-2:]
        if start_at is None:
            fitting = (n for n, s in self.stages.items() if s.takes_size(height, width))
            start_at = next(fitting, None)
            if start_at is None:
                sizes = [
                    f"{n} takes {s.size_taken}"
                    for n, s in self.stages.items()
                    if s.contract.takes_image
                ]
                raise ContractError(
                    f"no stage takes an image of {width}x{height} px "
                    f"({', '.join(sizes) or 'none'}); resize it."
                )
        stage = self.stages[start_at]
        if not stage.contract.takes_image:
            raise ContractError(f"stage {start_at!r} is a base stage and takes no image.")
        if not stage.takes_size(height, width):
            raise ContractError(
                f"stage {start_at!r} takes {stage.size_taken} px, the image has {width}x{height}; "
                "resize it."
            )
        return start_at

    def _settings(self, first: str, **given: PerStage) -> dict[str, SamplingSettings]:
        """The settings of the stages from `first` on."""
        names = self.stages.names
        run = names[names.index(first) :]
        takes_level = any(self.stages[name].contract.takes_image for name in run)
        if given.get("augmentation_level") is not None and not takes_level:
            raise ContractError("augmentation_level: no stage of this run takes an image.")
        values: dict[str, dict[str, Any]] = {name: {} for name in run}
        for setting, value in given.items():
            for name, each in per_stage(setting, value, names, run).items():
                values[name][setting] = each
        settings = {}
        for name in run:
            if not self.stages[name].contract.takes_image:
                values[name].pop("augmentation_level", None)
            settings[name] = self.stages[name].sampling.changed(**values[name])
            self.stages[name].check_settings(settings[name])
        return settings

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
            save_directory: where to; what stood there is replaced when the new one is complete.
            dtype: of the written tensors, such as bfloat16 for publishing; default float32.
            card: text of the model card; default: one that describes the stages.
            extra_files: texts by file name to put beside them, such as the recipe.
            safe_serialization: must be true; nothing is pickled here.
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
            index = {
                "_class_name": ["pipeline", "CascadePipeline"],
                "_diffusers_version": diffusers_version,
                "stages": ["cascade.chain", "StageChain"],
            }
            text = json.dumps(index, indent=2) + "\n"
            (temporary / INDEX).write_text(text, encoding="utf-8")
            (temporary / "pipeline.py").write_text(PIPELINE_FILE, encoding="utf-8")
            write_model_card(temporary, dict(self.stages.items()), card)
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
            repo_id: such as `user/name`.
            dtype: as for `save_pretrained`.
            card: as for `save_pretrained`.
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
            WeightsError: if it is missing, incomplete or damaged.
            ContractError: if its stages do not join.
        """
        torch_dtype = kwargs.pop("torch_dtype", None)
        local = pipeline_folder(str(folder), **kwargs)
        index = read_json(local / INDEX)
        if index.get("stages") is None:
            raise WeightsError(f"{local} is a diffusers pipeline, but not a Cascade.")
        return cls(StageChain.from_pretrained(local / "stages", torch_dtype=torch_dtype))
