"""What a pipeline of stages has in common with those of diffusers: attributes, devices, saving.

Attributes and methods of diffusers' pipelines that mean nothing for stages are refused with what to
do instead. diffusers itself is not imported; `cascade.diffusers_pipeline` is for those who use it.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import torch

from cascade.arguments import check_kind
from cascade.chain import StageChain, load_chain
from cascade.devices import check_dtype, find_device, offload_device
from cascade.errors import ContractError, WeightsError
from cascade.familiar_names import (
    ATTRIBUTES,
    attribute_text,
    check_arguments,
    setting_text,
)
from cascade.saving.atomic import atomic_folder
from cascade.saving.chain_folder import STAGES, pipeline_entries
from cascade.saving.hub import upload
from cascade.saving.loading import read_loading
from cascade.saving.model_card import write_model_card
from cascade.saving.pipelines import RECIPE, write_index
from cascade.stage import Stage
from cascade.tasks.table import find_task

EXPECTED_STAGES = "a StageChain; CascadePipeline.from_stages makes one"
CARD_FOLDER = "this/folder"  # in the examples of a model card
SAVING = ("dtype", "card", "recipe", "safe_serialization", "push_to_hub")
UPLOADING = ("private", "token", "commit_message", "create_pr")
REPOSITORY = "the name of a repository, such as 'user/name'"
NO_VARIANT = {"variant": "use dtype"}
DEVICE_MAP = "hf_device_map"  # an attribute that diffusers sets


class StagedPipeline(ABC):
    """A pipeline whose only component is a chain of stages.

    Args:
        stages: the chain of stages.
    """

    def __init__(self, stages: StageChain) -> None:
        self.stages: StageChain = stages
        self._current_stage: str | None = None
        self._num_timesteps = 0
        self._reported: set[str] = set()  # prompts about which a warning came
        self._progress_bar_options: dict[str, Any] = {}

    def __repr__(self) -> str:
        lines = (f"  {name}: {_in_words(stage)}" for name, stage in self.stages.items())
        return "\n".join([f"{type(self).__name__} of these stages:", *lines])

    @property
    def components(self) -> dict[str, Any]:
        """The parts of the pipeline by name."""
        return {"stages": self.stages}

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.stages.first.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights."""
        return self.stages.first.dtype

    def progress_bar(self, *, total: int) -> Any:
        """A bar that counts to `total`, as a context manager; in the first process only."""
        from tqdm.auto import tqdm

        first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        return tqdm(total=total, **{"disable": not first, **self._progress_bar_options})

    def set_progress_bar_config(self, **options: Any) -> None:
        """Set arguments of the progress bars, which are those of tqdm, such as `disable=True`."""
        self._progress_bar_options = options

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make images."""

    @property
    def current_stage(self) -> str | None:
        """Name of the stage that is sampling, for callbacks; None between calls."""
        return self._current_stage

    @property
    def num_timesteps(self) -> int:
        """How many steps the current stage takes, for callbacks; 0 before the first one ends.

        They are calls of its network; where an edit runs in tiles, each row of tiles counts.
        """
        return self._num_timesteps

    def enter(self, stage: str | None, steps: int = 0) -> None:
        """Record which stage is sampling and in how many steps."""
        self._current_stage, self._num_timesteps = stage, steps

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "stages":
            check_kind(name, value, StageChain, EXPECTED_STAGES)
        elif name in ATTRIBUTES or not (name.startswith("_") or name == DEVICE_MAP):
            raise ContractError(setting_text(name, exists=name in dir(type(self))))
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        names = [each for each in dir(type(self)) if not each.startswith("_")]
        usable = [each for each in names if each not in ATTRIBUTES]
        raise AttributeError(attribute_text(name, usable))

    def to(
        self,
        *targets: str | torch.device | torch.dtype | None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Move the weights to a device or convert them to a floating-point type.

        A device ends what `enable_model_cpu_offload` began.

        Args:
            targets: a device, a type, or both.
            device: the device, unless it is among `targets`.
            dtype: the type, unless it is among `targets`.

        Raises:
            ContractError: if the device cannot compute, or the type is none for weights.
        """
        for target in (*targets, device, dtype):
            if isinstance(target, torch.dtype):
                self.stages.to(check_dtype(target))
            elif target is not None:
                self.stages.to(find_device(target))
                self._compute_on(None)
        return self

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Keep the weights on the CPU, except those of the stage that is sampling.

        Args:
            gpu_id: number of the accelerator that computes; default: the first one.
            device: the accelerator; default: the one that PyTorch finds.

        Raises:
            ContractError: if there is no such accelerator.
        """
        computing = offload_device(device, gpu_id)
        self.to("cpu")
        self._compute_on(computing)

    def _compute_on(self, device: torch.device | None) -> None:
        for _, stage in self.stages.items():
            stage.computing_device = device

    # ---- other stages ---------------------------------------------------------------------------

    def with_adapter(self, folder: str | Path, scale: float = 1.0) -> Self:
        """Return a pipeline in which an adapter changes the stage that it was trained on.

        Args:
            folder: folder of the adapter, of the stage that was trained with it, or of the run.
            scale: factor of the change; 1 as in training.

        Raises:
            CascadeError: if there is no adapter, it belongs to none of the stages, or peft is not
                installed.
        """
        return type(self)(self.stages.with_adapter(folder, scale))

    def with_engine(self, engine: str) -> Self:
        """Return a pipeline whose networks another engine runs, on the CPU.

        Args:
            engine: `openvino`, which keeps what it compiled in the user's cache, or a folder that
                `cascade export` wrote.

        Raises:
            ContractError: if the engine is not installed, or the folder belongs to another version
                or to other weights.
            WeightsError: if the folder is damaged.
        """
        from cascade.engines.running import with_engine

        return type(self)(with_engine(self.stages, engine))

    def replace_stage(self, name: str, stage: Stage) -> None:
        """Replace a stage by another trained one.

        Raises:
            ContractError: if the new stage does not join its neighbours, or no stage has that name.
        """
        check_kind("stage", stage, Stage, "a Stage such as DiffusionStage")
        stage.computing_device = self.stages[name].computing_device
        chain = self.stages.replaced(name, stage.to(self.device))
        self.stages = chain

    # ---- saving and loading ---------------------------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype | None = None,
        card: str | None = None,
        recipe: str | None = None,
        safe_serialization: bool = True,
        **hub: Any,
    ) -> None:
        """Write the pipeline: `model_index.json`, `stages/`, `pipeline.py` and a model card.

        What `evaluate --apply-doubt` measured is kept as `doubt.json`.

        Args:
            save_directory: the pipeline's folder, which is replaced once the new one is complete.
            dtype: type of the written tensors, such as bfloat16 for publishing; default: that of
                the weights.
            card: text of the model card; default: a description of the stages.
            recipe: text of the recipe, which is kept as `pipeline.yaml`; default: none.
            safe_serialization: must be true; Cascade never pickles.
            hub: `push_to_hub=True` and `repo_id=…` upload the folder afterwards; see `push_to_hub`.

        Raises:
            ContractError: if an argument does not exist or does not fit.
            OutputError: if the folder cannot be written, or the Hub refuses.
            WeightsError: if `safe_serialization` is false.
        """
        pushed = hub.pop("push_to_hub", False)
        check_arguments(hub, [*SAVING, *(("repo_id", *UPLOADING) if pushed else ())], NO_VARIANT)
        check_kind("save_directory", save_directory, str | Path, "a folder")
        repo_id = hub.pop("repo_id", Path(save_directory).name) if pushed else ""
        check_kind("repo_id", repo_id, str, REPOSITORY)
        check_dtype(dtype)
        if not safe_serialization:
            raise WeightsError("weights are written as safetensors only: safe_serialization=True.")
        folder = Path(save_directory)
        with atomic_folder(
            folder, owned=pipeline_entries(folder, recipe), follow=True
        ) as temporary:
            self.stages.write(temporary / STAGES, dtype=dtype)
            self.stages.write_expected_error(temporary, dtype=dtype)
            write_index(temporary)
            summaries = {name: stage.summary() for name, stage in self.stages.items()}
            task = find_task(self.stages.contracts)
            usage = None if task is None else task.usage(CARD_FOLDER)
            write_model_card(temporary, summaries, usage, card)
            if recipe is not None:
                (temporary / RECIPE).write_text(recipe, encoding="utf-8")
        if pushed:
            upload(Path(save_directory), repo_id, **hub)

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
            dtype: floating-point type of the uploaded tensors; default: that of the weights.
            card: text of the model card; default: a description of the stages.
            hub: `private`, `token`, `commit_message`, `create_pr`.

        Returns:
            The address of the commit.

        Raises:
            ContractError: if an argument does not exist or does not fit.
            OutputError: if the Hub cannot be reached or refuses.
        """
        check_arguments(hub, ("dtype", "card", *UPLOADING), NO_VARIANT)
        check_kind("repo_id", repo_id, str, REPOSITORY)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "pipeline", dtype=dtype, card=card)
            return upload(Path(folder) / "pipeline", repo_id, **hub)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Self:
        """Load a bundled pipeline, a saved one, or one from the Hugging Face Hub.

        The folder of a trained stage, or of the run that trained it, becomes a pipeline of this one
        stage, which is called `stage`.

        Args:
            folder: a name such as `photo-x4`, a local folder, or an id such as `user/name`.
            options: `dtype` (or `torch_dtype`), the floating-point type of the weights in memory:
                float32 by default, bfloat16 or float16 for half the memory; `device_map`, a device
                such as `cuda:1`, or `auto` for the best one, by default the CPU; and for the Hub
                `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`.

        Raises:
            WeightsError: if the pipeline is missing, incomplete, damaged, or one of diffusers.
            ContractError: if an option does not exist or has no effect, or the stages do not join.
        """
        loading = read_loading(folder, options)
        pipeline = cls(load_chain(loading.folder, torch_dtype=loading.dtype))
        return pipeline if loading.device is None else pipeline.to(loading.device)


def _in_words(stage: Stage) -> str:
    """What a stage takes and gives, and its size."""
    contract = stage.contract
    further = [each.name for each in contract.conditions if each.image_space(stage.space) is None]
    millions = sum(each.numel() for each in stage.parameters()) / 1e6
    takes = ", ".join([contract.description, *further])
    return f"{takes} to {stage.space.size_text}, {millions:.1f} million parameters"
