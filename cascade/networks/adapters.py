"""Low-rank adapters of a network's layers (LoRA, Hu et al. 2021, arXiv 2106.09685), through peft.

An adapter adds `scale alpha / rank B A` to the weights of linear layers and convolutions. Its
folder is that of peft, with one file beside it: a few weights of every layer that it was trained
on, by which it is recognised. These are compared with a tolerance, so that a copy of the same
network in half precision counts as the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from cascade.errors import ContractError, WeightsError, first_line
from cascade.extras import install_command

Module = TypeVar("Module", bound=nn.Module)
NAME = "default"
WEIGHTS, CONFIG, BASE = "adapter_model.safetensors", "adapter_config.json", "base_weights.json"
FILES = (WEIGHTS, CONFIG, BASE)
PREFIX = "base_model.model."  # of peft's own files
SAMPLED = 8  # weights of a layer
SAME = 0.02  # relative difference; bfloat16 has 0.004
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class OtherStageError(WeightsError):
    """An adapter was trained on another stage."""


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """A new adapter.

    Attributes:
        rank: rank of the change of a layer, at least 1.
        alpha: the change is multiplied by alpha / rank; None for `rank`.
        targets: ends of the names of layers that it changes, such as `to_q`; None for all linear
            layers and convolutions.
    """

    rank: int = 8
    alpha: float | None = None
    targets: Sequence[str] | None = None


def add_adapter(module: nn.Module, settings: AdapterSettings) -> None:
    """Add an adapter that changes nothing yet; every other weight of the module is frozen.

    Raises:
        ContractError: if peft is missing, or no layer has such a name.
    """
    names = [name for name, each in module.named_modules() if isinstance(each, LAYERS)]
    targets = names if settings.targets is None else _chosen(names, settings.targets)
    with _peft() as peft:
        alpha = settings.rank if settings.alpha is None else settings.alpha
        config = peft.LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=targets)
        peft.inject_adapter_in_model(config, module, NAME)


def _chosen(names: Sequence[str], targets: Sequence[str]) -> list[str]:
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            ends = sorted({name.rpartition(".")[2] for name in names} - set("0123456789"))
            raise ContractError(
                f"no layer's name ends in {target!r}; layers of this network end in "
                f"{', '.join(ends[:12])}."
            )
    return [n for n in names if any(n == t or n.endswith(f".{t}") for t in targets)]


def has_adapter(module: nn.Module) -> bool:
    """Whether a module has an adapter that was not merged."""
    return any(_is_adapted(each) for each in module.modules())


def _is_adapted(layer: nn.Module) -> bool:
    return hasattr(layer, "lora_A") and hasattr(layer, "base_layer")


def merged(module: Module) -> Module:
    """A copy whose weights include the change of the adapter; the module itself if it has none."""
    if not has_adapter(module):
        return module
    other = copy.deepcopy(module)
    _merge(other)
    return other


def _merge(module: nn.Module) -> None:
    """Replace all adapted layers by plain ones, and let all weights train again."""
    for name, layer in list(module.named_modules()):
        if not _is_adapted(layer):
            continue
        layer.merge()  # pyright: ignore[reportCallIssue]
        parent, _, last = name.rpartition(".")
        place: Any = module.get_submodule(parent)
        if isinstance(place, nn.ModuleList | nn.Sequential):
            place[int(last)] = layer.get_submodule("base_layer")
        else:
            setattr(place, last, layer.get_submodule("base_layer"))
    for each in module.modules():
        each.__dict__.pop("peft_config", None)
    module.requires_grad_(True)


# ---- folders ------------------------------------------------------------------------------------


def write_adapter(module: nn.Module, folder: Path) -> None:
    """Write the adapter of a module in peft's layout."""
    with _peft() as peft:
        owner = next(each for each in module.modules() if hasattr(each, "peft_config"))
        tensors = peft.get_peft_model_state_dict(owner, adapter_name=NAME)
        folder.mkdir(parents=True, exist_ok=True)
        named = {f"{PREFIX}{n}": t.detach().cpu().contiguous() for n, t in tensors.items()}
        save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
        config: Any = owner.peft_config
        config[NAME].save_pretrained(folder)
    base = {
        name: _sample(layer.base_layer)
        for name, layer in owner.named_modules()
        if _is_adapted(layer)
    }
    (folder / BASE).write_text(json.dumps(base, indent=1) + "\n", encoding="utf-8")


def _sample(layer: Any) -> list[float]:
    """A few weights of a layer, evenly spaced."""
    weights = layer.weight.detach().flatten()
    places = torch.linspace(0, len(weights) - 1, min(SAMPLED, len(weights))).long()
    return weights[places.to(weights.device)].float().tolist()


def check_belongs(folder: Path, module: nn.Module) -> None:
    """Check that the adapter in a folder was trained on this module.

    Raises:
        OtherStageError: if it was not.
        WeightsError: if there is no adapter in the folder.
    """
    if not _belongs(folder, module):
        raise OtherStageError(
            f"the adapter in {folder} was trained on another stage; its layers or weights differ."
        )


def _belongs(folder: Path, module: nn.Module) -> bool:
    layers = dict(module.named_modules())
    for name, values in _read_base(folder).items():
        if not isinstance(layers.get(name), LAYERS):
            return False
        own, theirs = torch.tensor(_sample(layers[name])), torch.tensor(values)
        size = theirs.abs().max().clamp(min=1e-12) if len(theirs) else 1
        if own.shape != theirs.shape or ((own - theirs).abs() / size).max() > SAME:
            return False
    return True


def _read_base(folder: Path) -> Mapping[str, list[float]]:
    try:
        values = json.loads((folder / BASE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"no adapter in {folder}: {BASE} is missing or damaged.") from error
    if not isinstance(values, dict) or not values:
        raise WeightsError(f"{folder / BASE} must hold a JSON object with layers.")
    return values


def load_adapter(module: nn.Module, folder: Path, *, scale: float, merge: bool) -> None:
    """Add a trained adapter to a module, in place.

    Args:
        module: the module that it was trained on.
        folder: folder of the adapter.
        scale: factor of its change; 0 for none of it, 1 for all.
        merge: whether to add it to the weights; otherwise it is computed beside them.

    Raises:
        WeightsError: if a file is missing or damaged, or the adapter is of another network.
    """
    check_belongs(folder, module)
    try:
        tensors = {n.removeprefix(PREFIX): t for n, t in load_file(folder / WEIGHTS).items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{folder / WEIGHTS} is missing or damaged.") from error
    with _peft() as peft:
        try:
            config = peft.LoraConfig.from_pretrained(folder)
            peft.inject_adapter_in_model(config, module, NAME)
            result = peft.set_peft_model_state_dict(module, tensors, adapter_name=NAME)
        except (ValueError, TypeError, RuntimeError, LookupError, OSError) as error:
            raise WeightsError(
                f"{folder / CONFIG} does not describe this adapter ({first_line(error)})."
            ) from error
    lacking = [name for name in result.missing_keys if "lora_" in name]
    if lacking or result.unexpected_keys:
        raise WeightsError(f"{folder / WEIGHTS} lacks or adds weights, such as {lacking[:1]}.")
    for layer in module.modules():
        if _is_adapted(layer):
            layer.scale_layer(scale)  # pyright: ignore[reportCallIssue]
    if merge:
        _merge(module)


@contextmanager
def _peft() -> Iterator[Any]:
    """Yield the library.

    Raises:
        ContractError: if it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ContractError(f"adapters need peft; run {install_command('lora')}.") from error
    yield peft
