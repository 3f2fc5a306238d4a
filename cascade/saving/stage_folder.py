"""The folder of a stage, in diffusers layout: `stage.json`, network, embedding, scheduler."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from cascade.conditioning.kinds import CONDITIONS
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import CascadeError, ContractError, WeightsError, nearest
from cascade.networks.adapters import CONFIG as ADAPTER_CONFIG
from cascade.networks.adapters import FILES as ADAPTER_FILES
from cascade.networks.autoencoder import FOLDER as AUTOENCODER
from cascade.networks.backbones import NETWORKS
from cascade.networks.imported_networks import StageADMUNet, StageUNet2D
from cascade.networks.stage_network import StageNetwork
from cascade.sampling.settings import SamplingSettings
from cascade.saving.components import (
    component_entries,
    load_component,
    own_record,
    read_json,
    save_component,
)
from cascade.saving.differences import differences
from cascade.saving.pipelines import DOUBT


class Configured(Protocol):
    """A stage that can say what `stage.json` holds."""

    def config(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        ...


Built = TypeVar("Built", bound=Configured)
CONFIG = "stage.json"
ADAPTER = "adapter"
SCHEDULER = "scheduler/scheduler_config.json"


def stage_entries(folder: Path) -> list[str]:
    """The files of the stage in a folder, which another stage may replace.

    Returns:
        For `atomic_folder`; empty if no `stage.json` shows that the folder is that of a stage.
    """
    if not own_record(folder / CONFIG, ("kind", "contract")):
        return []
    parts = ["embedding", "encoder", "tokens", AUTOENCODER, *NETWORKS]
    return [
        CONFIG,
        DOUBT,
        SCHEDULER,
        *(f"{part}/{name}" for part in parts for name in component_entries(folder / part)),
        *(f"{ADAPTER}/{name}" for name in ADAPTER_FILES),
        *(name for kind in CONDITIONS.values() for name in kind.files),
    ]


def diffusion_config(
    network: StageNetwork, contract: Contract, process: NoiseProcess, sampling: SamplingSettings
) -> dict[str, Any]:
    """The values in `stage.json` of a diffusion stage, besides its kind.

    Raises:
        WeightsError: if the network or the sampler could not be made again from what would be
            saved.
    """
    if not isinstance(sampling.sampler, str):
        raise WeightsError(
            f"sampler {sampling.sampler.__name__} has no name in the table of samplers, so it "
            "cannot be saved; enter it in cascade.sampling.samplers.table.SAMPLERS, or save with "
            "another sampler."
        )
    return {
        "network": {"kind": network.kind, **network.config()},
        "contract": contract.to_dict(),
        "schedule": process.schedule.config(),
        "process": process.config(),
        "sampling": sampling.to_dict(),
    }


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write `stage.json`."""
    text = json.dumps(config, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def write_network(network: StageNetwork, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the components of a network, each into a folder of its name."""
    for name, part in network.components().items():
        save_component(part, folder / name, dtype=dtype)


def read_network(folder: Path, kind: str, config: Mapping[str, Any]) -> StageNetwork:
    """Read a network of a kind.

    Raises:
        WeightsError: if the kind is unknown, or a component is missing or damaged.
    """
    if kind not in NETWORKS:
        raise WeightsError(
            f"{folder / CONFIG}: unknown network {kind!r}: {nearest(kind, NETWORKS)}"
        )
    classes = NETWORKS[kind].component_classes(config)
    components = {name: load_component(each, folder / name) for name, each in classes.items()}
    return NETWORKS[kind].of_components(components, config)


def read_network_options(folder: Path) -> tuple[str, dict[str, Any]]:
    """The kind of an imported stage's network, and the options that make a new one like it.

    Raises:
        WeightsError: if the folder holds no such stage.
    """
    kind = read_json(folder / CONFIG).get("network", {}).get("kind")
    if kind not in (StageADMUNet.kind, StageUNet2D.kind):
        raise WeightsError(
            f"the network in {folder} is a {kind}; describe it in the recipe, since only networks "
            f"of the kinds {StageADMUNet.kind} and {StageUNet2D.kind} are taken over like this."
        )
    config = read_json(folder / kind / "config.json")
    return kind, {name: value for name, value in config.items() if not name.startswith("_")}


def write_scheduler(folder: Path, process: NoiseProcess, sampling: SamplingSettings) -> None:
    """Write the scheduler with which plain diffusers walks as the stage's own DDIM does."""
    file = folder / SCHEDULER
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(scheduler_config(process, sampling), indent=2) + "\n"
    file.write_text(text, encoding="utf-8")


def scheduler_config(process: NoiseProcess, sampling: SamplingSettings) -> dict[str, Any]:
    """The configuration of that scheduler."""
    return {
        "_class_name": "DDIMScheduler",
        "prediction_type": {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}[
            process.prediction
        ],
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        **threshold_config(sampling),
        **process.schedule.diffusers_config(),
    }


NO_CAP = 100.0  # for diffusers, whose default of 1 would make it a static clip


def threshold_config(sampling: SamplingSettings) -> dict[str, Any]:
    """The part of it that depends on the sampling settings."""
    return {
        "clip_sample": sampling.threshold == "static",
        "thresholding": sampling.threshold == "dynamic",
        "dynamic_thresholding_ratio": sampling.percentile,
        "sample_max_value": sampling.threshold_cap or NO_CAP,
    }


def stage_in(folder: Path) -> Path | None:
    """The folder of a trained stage: the folder itself, or a part of the run that trained it.

    Returns:
        None if there is none.
    """
    return next((each for each in (folder / "stage", folder) if (each / CONFIG).is_file()), None)


def adapter_in(folder: Path) -> Path:
    """The folder of an adapter: the folder itself, or a part of a stage or of a run.

    Raises:
        WeightsError: if there is none.
    """
    for each in (folder, folder / ADAPTER, folder / "stage" / ADAPTER):
        if (each / ADAPTER_CONFIG).is_file():
            return each
    raise WeightsError(f"no adapter in {folder}: there is no {ADAPTER_CONFIG}.")


def read_kind(folder: Path) -> str:
    """The kind of the stage in a folder.

    Raises:
        WeightsError: if the folder is missing or holds no stage.
    """
    if not folder.is_dir():
        raise WeightsError(f"no stage at {folder}: the folder does not exist.")
    return str(read_json(folder / CONFIG).get("kind"))


def read_contract(folder: Path) -> Contract:
    """Read the contract of the stage in a folder, without its weights.

    Raises:
        WeightsError: if the folder is missing or damaged.
    """
    try:
        return Contract.from_dict(read_json(folder / CONFIG)["contract"])
    except (LookupError, TypeError, AttributeError, ContractError) as error:
        raise no_stage(folder, error) from error


def read_sampling(folder: Path) -> SamplingSettings | None:
    """Read the sampling settings of the stage in a folder; None if it does not sample in steps.

    Raises:
        WeightsError: if the folder is missing or damaged.
    """
    config = read_json(folder / CONFIG)
    try:
        values = config["sampling"] if config["kind"] == "diffusion" else None
        return None if values is None else SamplingSettings().changed(**values)
    except (LookupError, TypeError, ContractError) as error:
        raise no_stage(folder, error) from error


def no_stage(folder: Path, error: Exception) -> WeightsError:
    """The error that `stage.json` in a folder describes no stage.

    Args:
        folder: folder of the stage.
        error: what went wrong when it was read.
    """
    reason = str(error)
    if not isinstance(error, CascadeError):  # Python's own words say little to a user
        reason = f"{error!r}; the file is damaged or was edited by hand."
    return WeightsError(f"{folder / CONFIG} does not describe a stage: {reason}")


def read_diffusion_stage(folder: Path, stage_class: Callable[..., Built]) -> Built:
    """Build the diffusion stage that a folder holds, on the CPU, in float32.

    Args:
        folder: folder of the stage.
        stage_class: `DiffusionStage`, which stands on a floor above.

    Raises:
        WeightsError: if the folder is missing, incomplete, damaged, or not such a stage.
    """
    return read_stage(
        folder, "a diffusion stage", lambda config: stage_class(**_arguments(config, folder))
    )


def read_stage(folder: Path, kind_text: str, build: Callable[[dict[str, Any]], Built]) -> Built:
    """Build the stage that a folder holds, if it is of a certain kind.

    Args:
        folder: folder of the stage.
        kind_text: the kind in words, such as `a diffusion stage`.
        build: makes the stage from the values in `stage.json`.

    Raises:
        WeightsError: if the folder is missing, incomplete, damaged, or not such a stage.
    """
    kind = read_kind(folder)
    if kind != kind_text.split()[1]:
        raise WeightsError(f"{folder / CONFIG} describes a {kind} stage, not {kind_text}.")
    config = read_json(folder / CONFIG)
    try:
        stage = build(config)
    except WeightsError:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise no_stage(folder, error) from error
    check_read_whole(folder / CONFIG, config, {"kind": kind, **stage.config()})
    return stage


def check_read_whole(file: Path, config: Mapping[str, Any], read: Mapping[str, Any]) -> None:
    """Check that nothing was made up for a missing key, and that no key was passed over.

    Raises:
        WeightsError: naming the first key of the file that the stage would not write like this.
    """
    for each in differences(config, read):
        raise WeightsError(
            f"{file} does not describe a stage: {each.key} is {each.before}, but a stage would "
            f"write {each.now}; the file is damaged or was edited by hand."
        )


def _arguments(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    network = dict(config["network"])
    return {
        "network": read_network(folder, network.pop("kind"), network),
        "process": NoiseProcess(NoiseSchedule(**config["schedule"]), **config["process"]),
        "contract": Contract.from_dict(config["contract"]).changed(
            lambda condition: condition.with_files(folder)
        ),
        "sampling": SamplingSettings().changed(**config["sampling"]),
    }
