"""StageChain: a pipeline's stages, in order and checked to join."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from cascade.arguments import check_kind
from cascade.chain_settings import changed_sampling
from cascade.contract import Contract
from cascade.errors import ContractError, WeightsError, nearest
from cascade.networks.adapters import OtherStageError
from cascade.restoration.expected_error import ExpectedError, load_expected_error
from cascade.sampling.overrides import Overrides
from cascade.sampling.per_stage import ALL
from cascade.saving.atomic import atomic_folder
from cascade.saving.chain_folder import chain_entries, saved_names, write_names
from cascade.saving.components import read_json
from cascade.saving.pipelines import INDEX, has_weights
from cascade.saving.stage_folder import stage_in
from cascade.stage import Stage
from cascade.stage_kinds import load_stage

ONLY_STAGE = "stage"  # name of a stage that is a pipeline of its own
logger = logging.getLogger(__name__)


class StageChain(nn.Module):
    """Named stages, each of which takes the images of the one before it.

    Args:
        stages: the stages by name, first stage first; only the first one may start from noise
            alone.
        expected_error: what the standard deviation over seeds says about errors. Chains that are
            made of this one keep it, because `ExpectedError.holds_for` tells whether it is used.

    Raises:
        ContractError: if the stages do not join; the message names the number that disagrees.
    """

    def __init__(
        self, stages: Mapping[str, Stage], *, expected_error: ExpectedError | None = None
    ) -> None:
        super().__init__()
        check_kind("stages", stages, Mapping, "a mapping from names to stages, first stage first")
        if not stages:
            raise ContractError("a pipeline needs at least one stage.")
        previous: tuple[str, Stage] | None = None
        for name, stage in stages.items():
            check_kind(f"stage {name!r}", stage, Stage, "a Stage such as DiffusionStage")
            if not isinstance(name, str) or not name.isidentifier():
                raise ContractError(f"stage name {name!r} must be a word such as 'upsampler'.")
            if name == ALL:
                raise ContractError(f"stage name {name!r} stands for every stage; use another.")
            if previous is not None:
                stage.contract.check_follows(
                    previous[1].contract, name=name, previous_name=previous[0]
                )
            previous = (name, stage)
        self.expected_error = expected_error
        self.names = list(stages)
        self.members = nn.ModuleList(stages.values())

    def items(self) -> Iterator[tuple[str, Stage]]:
        """Names and stages, first stage first."""
        for name, stage in zip(self.names, self.members, strict=True):
            assert isinstance(stage, Stage)
            yield name, stage

    def __getitem__(self, name: str) -> Stage:
        if name not in self.names:
            raise ContractError(
                f"no stage {name!r} in this pipeline: {nearest(str(name), self.names)}"
            )
        stage = self.members[self.names.index(name)]
        assert isinstance(stage, Stage)
        return stage

    def with_adapter(self, folder: str | Path, scale: float) -> StageChain:
        """Return a chain in which an adapter changes the stage that it was trained on.

        Raises:
            CascadeError: if there is no adapter, or it belongs to none of the stages.
        """
        for name, stage in self.items():
            with suppress(OtherStageError):
                return self.replaced(name, stage.with_adapter(folder, scale))
        raise OtherStageError(
            f"the adapter in {folder} was trained on none of the stages {', '.join(self.names)}."
        )

    @property
    def first(self) -> Stage:
        """The first stage."""
        return self[self.names[0]]

    @property
    def last(self) -> Stage:
        """The last stage."""
        return self[self.names[-1]]

    @property
    def contracts(self) -> list[Contract]:
        """The contracts of the stages, first stage first."""
        return [stage.contract for _, stage in self.items()]

    def between(self, first: str, last: str | None = None) -> StageChain:
        """The part of the chain that begins at one of its stages and ends at another.

        Args:
            first: name of the part's first stage.
            last: name of its last stage; None for the last one of the chain.

        Raises:
            ContractError: if no stage has that name, or the last stage comes before the first.
        """
        names = [first, self.names[-1] if last is None else last]
        start, stop = (self._place(name) for name in names)
        if stop < start:
            raise ContractError(
                f"stop_at {names[1]!r} comes before {first!r}, the stage at which the run starts."
            )
        return self.of(dict(list(self.items())[start : stop + 1]))

    def _place(self, name: str) -> int:
        self[name]
        return self.names.index(name)

    def replaced(self, name: str, stage: Stage) -> StageChain:
        """Return a chain in which another stage takes the place of the one of that name.

        Raises:
            ContractError: if no stage has that name, or the new stage does not join its neighbours.
        """
        self[name]
        return self.of({**dict(self.items()), name: stage})

    def of(self, stages: Mapping[str, Stage]) -> StageChain:
        """Return a chain of other stages with the same expected errors.

        Raises:
            ContractError: if they do not join.
        """
        return StageChain(stages, expected_error=self.expected_error)

    def with_sampling(self, overrides: Overrides) -> StageChain:
        """Return a chain that shares the weights and samples with changed settings.

        Noise level and temperature are only for stages that take an image, guidance for those with
        conditions that training dropped, `denoise` and `keep_colours` for those whose image they
        concern. A change of them for all stages passes over the others.

        Raises:
            ContractError: for a stage or a setting that does not exist, or a value that does not
                fit a stage.
        """
        check_kind("overrides", overrides, Overrides, "Overrides({...})")
        stages = dict(self.items())
        changed = changed_sampling(stages, overrides)
        return self.of({n: stage.with_sampling(changed[n]) for n, stage in stages.items()})

    # ---- saving and loading ---------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write each stage into a folder of its name, and `chain.json` with their order."""
        with atomic_folder(
            Path(folder), owned=chain_entries(Path(folder)), follow=True
        ) as temporary:
            self.write(temporary, dtype=dtype)
            self.write_expected_error(temporary, dtype=dtype)

    def write(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write into a folder that the caller makes atomic."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, stage in self.items():
            (folder / name).mkdir()
            stage.write(folder / name, dtype=dtype)
        write_names(folder, self.names)

    def write_expected_error(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the expected errors beside stages that `write` wrote, if they are known.

        Args:
            folder: folder of the chain or of its pipeline.
            dtype: type of the written weights, as for `write`.
        """
        if self.expected_error is None:
            return
        self.expected_error.save(folder)
        if dtype is not None and any(_is_rounded(each, dtype) for each in self.parameters()):
            logger.warning(
                "the weights are rounded to %s, for which the expected errors were not measured; "
                "measure them again with evaluate --apply-doubt.",
                str(dtype).removeprefix("torch."),
            )

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, torch_dtype: torch.dtype | None = None
    ) -> StageChain:
        """Load what `save_pretrained` wrote.

        Args:
            folder: the folder to read.
            torch_dtype: floating-point type of the weights in memory; default: float32.

        Raises:
            WeightsError: if a file is missing or damaged.
            ContractError: if the stages do not join.
        """
        folder = Path(folder)
        names = saved_names(folder)
        stages = {name: load_stage(folder / name) for name in names}
        chain = cls(stages, expected_error=load_expected_error(folder))
        return _in_dtype(chain, torch_dtype)


def load_chain(folder: Path, *, torch_dtype: torch.dtype | None = None) -> StageChain:
    """Load the stages of a saved pipeline, or one trained stage, which is then called `stage`.

    Args:
        folder: folder of a pipeline, of a stage, or of the run that trained a stage.
        torch_dtype: floating-point type of the weights in memory; default: float32.

    Raises:
        WeightsError: if the folder holds neither, or a file is missing or damaged.
        ContractError: if the stages do not join.
    """
    chain = _load_stages(folder, torch_dtype)
    chain.expected_error = load_expected_error(folder)
    return chain


def _load_stages(folder: Path, torch_dtype: torch.dtype | None) -> StageChain:
    stage = None if has_weights(folder) else stage_in(folder)
    if stage is not None:
        logger.info("taking the stage in %s%s", stage, _further_averages(stage))
        return _in_dtype(StageChain({ONLY_STAGE: load_stage(stage)}), torch_dtype)
    if not has_weights(folder) and not (folder / "stages").is_dir():
        raise WeightsError(
            f"{folder} holds neither a pipeline nor a trained stage; a run writes its stage when "
            "it ends or is stopped."
        )
    if read_json(folder / INDEX).get("stages") is None:
        raise WeightsError(f"{folder} is a diffusers pipeline, not a Cascade pipeline.")
    return StageChain.from_pretrained(folder / "stages", torch_dtype=torch_dtype)


def _further_averages(stage: Path) -> str:
    """Names the averages of other widths in the run of a stage, for a message."""
    names = sorted(path.name for path in stage.parent.glob("stage-*") if stage_in(path) == path)
    return f"; the run also has {', '.join(names)}" if names and stage.name == "stage" else ""


def _in_dtype(chain: StageChain, torch_dtype: torch.dtype | None) -> StageChain:
    if torch_dtype is not None:
        chain.members.to(torch_dtype)
    return chain


def _is_rounded(weight: Tensor, dtype: torch.dtype) -> bool:
    return not weight.equal(weight.to(dtype).to(weight.dtype))
