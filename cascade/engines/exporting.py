"""Exports the networks of a pipeline to the files of another engine.

Only the networks are exported, one file per stage; the loop over steps stays in Python. A record
beside them says which weights they hold.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from cascade import __version__
from cascade.chain import StageChain
from cascade.diffusion_stage import DiffusionStage
from cascade.engines.flat_network import (
    IMAGE,
    TIME,
    FlatNetwork,
    dynamic_shapes,
    example_inputs,
)
from cascade.errors import ContractError
from cascade.extras import install_command
from cascade.saving.atomic import atomic_folder
from cascade.saving.components import own_record, weights_digest

EngineFormat = Literal["onnx", "openvino"]
RECORD = "engine.json"
FILES = {"onnx": "{}.onnx", "openvino": "{}.xml"}  # by format, for the name of a stage
ENDINGS = (".xml", ".bin", ".onnx", ".onnx.data")  # the last for the weights of large networks


def export_networks(chain: StageChain, format: EngineFormat, out: Path) -> None:
    """Export the networks of all stages that sample in steps; autoencoders stay in PyTorch.

    Args:
        chain: the stages, with weights in float32 on the CPU.
        format: `onnx`, or `openvino` for its intermediate representation.
        out: folder for the files, which is replaced once the new one is complete.

    Raises:
        ContractError: if the format's packages are missing, there is no such stage, or a network
            cannot be exported.
        OutputError: if the folder cannot be written, or holds anything but an earlier export.
    """
    save = {"onnx": _save_onnx, "openvino": _save_openvino}[format]
    _check_installed(format)
    with atomic_folder(out, owned=export_entries(out), follow=True) as temporary:
        stages = {}
        for name, stage in exported_stages(chain).items():
            file = FILES[format].format(name)
            inputs = _export(name, stage, save, temporary / file)
            stages[name] = {"file": file, "inputs": inputs, "weights": network_digest(stage)}
        record = {"format": format, "version": __version__, "stages": stages}
        (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def export_entries(folder: Path) -> list[str]:
    """The files of an export, which another may replace; none if no record shows that it is one."""
    stages = own_record(folder / RECORD, ("format", "version", "stages")).get("stages")
    if not isinstance(stages, dict):
        return []
    return [RECORD, *(f"{name}{ending}" for name in stages for ending in ENDINGS)]


def exported_stages(chain: StageChain) -> dict[str, DiffusionStage]:
    """The stages whose networks other engines run, by name.

    Raises:
        ContractError: if there is none.
    """
    stages = {name: each for name, each in chain.items() if isinstance(each, DiffusionStage)}
    if not stages:
        raise ContractError(
            "no stage of this pipeline samples in steps; autoencoders run in PyTorch only."
        )
    return stages


def network_digest(stage: DiffusionStage) -> str:
    """Hash the names and values of the weights of a stage's network."""
    return weights_digest(stage.network)


def _export(name: str, stage: DiffusionStage, save: Callable[..., None], file: Path) -> list[str]:
    """Export the network of one stage; returns the names of its inputs, in order."""
    if stage.dtype != torch.float32 or stage.device.type != "cpu":
        raise ContractError(
            f"stage {name!r} has weights in {stage.dtype} on {stage.device}; export a pipeline in "
            "float32 on the CPU."
        )
    space, slots = stage.space, stage.contract.slots
    x_t, t, tensors = example_inputs(stage.network, space.channels, space.size, slots)
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto}, {0: auto}, dynamic_shapes(tensors))
    names = [IMAGE, TIME, *tensors]
    try:
        with torch.no_grad(), _quiet():
            network = FlatNetwork(stage.network).eval()
            program = torch.export.export(network, (x_t, t, tensors), dynamic_shapes=shapes)
            save(program, names, file)
    except (RuntimeError, ValueError, NotImplementedError, torch.onnx.OnnxExporterError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ContractError(
            f"the network of stage {name!r} cannot be exported: {reason}"
        ) from error
    return names


def _save_onnx(program: torch.export.ExportedProgram, names: list[str], file: Path) -> None:
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    assert exported is not None
    for value, name in zip(exported.model.graph.inputs, names, strict=True):
        value.name = name
    exported.save(file)


def _save_openvino(program: torch.export.ExportedProgram, names: list[str], file: Path) -> None:
    import openvino  # pyright: ignore[reportMissingImports]

    model = openvino.convert_model(program)
    for port, name in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    openvino.save_model(model, file, compress_to_fp16=False)


def _check_installed(format: EngineFormat) -> None:
    """Check that the packages of a format can be imported.

    Raises:
        ContractError: with the command that installs them.
    """
    try:
        if format == "onnx":
            import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
            import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
        else:
            import openvino  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ContractError(
            f"the format {format} needs packages that are not installed; run "
            f"{install_command(format)}."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings about the inside of exporters from users, who cannot act on them."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
