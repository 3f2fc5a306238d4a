"""What `from_pretrained` takes: which weights, in which type and on which device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cascade.arguments import flag, shown
from cascade.devices import check_dtype, find_device
from cascade.errors import ContractError, WeightsError
from cascade.familiar_names import LOADING, check_arguments
from cascade.saving.pipelines import local_folder, pipeline_folder

OF_HUB = ("revision", "token", "cache_dir", "force_download", "local_files_only")
OPTIONS = ("dtype", "torch_dtype", "device_map", "use_safetensors", *OF_HUB)


@dataclass(frozen=True)
class Loading:
    """A pipeline to load.

    Attributes:
        folder: folder of the pipeline on this machine.
        dtype: floating-point type of the weights in memory; None for float32.
        device: device for the weights; None for the CPU.
    """

    folder: Path
    dtype: torch.dtype | None
    device: torch.device | None


def read_loading(name: str | Path, options: Mapping[str, Any]) -> Loading:
    """Read the arguments of `from_pretrained`, and find the folder or download it.

    Args:
        name: a folder, a bundled pipeline, or an id of the Hub.
        options: values for names in `OPTIONS`.

    Raises:
        ContractError: if an argument does not exist, has no effect, or has a wrong value.
        WeightsError: if the pipeline is missing, or cannot be downloaded.
    """
    check_arguments(options, OPTIONS, LOADING)
    if not isinstance(name, str | Path):
        raise ContractError(
            f"from_pretrained needs a folder, a bundled pipeline or an id of the Hub, got "
            f"{shown(name)}."
        )
    if options.get("use_safetensors") not in (None, True):
        raise WeightsError("weights are read from safetensors only: use_safetensors=True.")
    dtype, device = _dtype(options), _device(options.get("device_map"))
    hub = {key: options[key] for key in OF_HUB if options.get(key) is not None}
    for key in ("force_download", "local_files_only"):
        if key in hub:
            hub[key] = flag(key, hub[key])
    if local_folder(str(name)) is not None:
        _check_local(str(name), hub)
        hub = {}
    return Loading(pipeline_folder(str(name), **hub), dtype, device)


def _dtype(options: Mapping[str, Any]) -> torch.dtype | None:
    """The type under either of its names."""
    dtypes = [options[key] for key in ("dtype", "torch_dtype") if options.get(key) is not None]
    if len(dtypes) == 2 and dtypes[0] != dtypes[1]:
        raise ContractError(
            f"dtype {dtypes[0]} and torch_dtype {dtypes[1]} differ; give dtype alone."
        )
    return check_dtype(dtypes[0]) if dtypes else None


def _device(device_map: Any) -> torch.device | None:
    """The one device of a device map."""
    if device_map is None:
        return None
    if not isinstance(device_map, str | torch.device) or device_map in ("balanced", "sequential"):
        raise ContractError(
            "device_map must be one device such as 'cpu' or 'cuda:1', or 'auto' for the best one, "
            f"got {shown(device_map)}; to share a small device use enable_model_cpu_offload."
        )
    return find_device(None if device_map == "auto" else str(device_map))


def _check_local(name: str, hub: Mapping[str, Any]) -> None:
    """Check that nothing is asked of the Hub for a folder on this machine."""
    for key, value in hub.items():
        if key != "local_files_only" and value is not False:
            raise ContractError(
                f"{key} is for pipelines of the Hub, but {name!r} is a folder on this machine; "
                "leave it out."
            )
