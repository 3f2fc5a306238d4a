"""Lets an engine run the networks of a pipeline: from an exported folder, or a kept export."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.chain import StageChain
from cascade.engines.exporting import RECORD, export_networks, exported_stages, network_digest
from cascade.engines.openvino_network import OpenVINONetwork
from cascade.errors import ContractError, WeightsError
from cascade.extras import install_command
from cascade.networks.stage_network import StageNetwork
from cascade.saving.components import read_json
from cascade.stage import Stage

OPENVINO = "openvino"
CACHE_VARIABLE = "XDG_CACHE_HOME"
logger = logging.getLogger(__name__)


def with_engine(chain: StageChain, engine: str) -> StageChain:
    """Return a chain whose networks an engine runs; its other parts and autoencoders are shared.

    Args:
        chain: the stages, with weights in float32 on the CPU.
        engine: `openvino`, which exports the networks at first use and keeps them in the user's
            cache, or a folder that `export_networks` wrote.

    Raises:
        ContractError: if the engine is unknown or not installed, or the folder was exported by
            another version, or from other weights.
        WeightsError: if the folder is damaged.
    """
    _check_engine(engine)
    digests = _network_digests(chain)
    folder = _kept_export(chain, digests) if engine == OPENVINO else Path(engine)
    return _with_export(chain, folder, digests, _kept_folder("compiled"))


def as_if_with_engine(chain: StageChain, engine: str) -> StageChain:
    """Return a chain that has the digest of `with_engine`, for a dry run: nothing is exported.

    The networks of `openvino` predict nothing; those of a folder do, and keep nothing.

    Args:
        chain: as for `with_engine`.
        engine: as for `with_engine`.

    Raises:
        CascadeError: as `with_engine`.
    """
    _check_engine(engine)
    if engine != OPENVINO:
        return _with_export(chain, Path(engine), _network_digests(chain), None)
    return _with_networks(chain, lambda name, original: OpenVINONetwork(original))


def _check_engine(engine: str) -> None:
    """Check that an engine is known and installed.

    Raises:
        ContractError: if it is not.
    """
    if engine != OPENVINO and not Path(engine).is_dir():
        raise ContractError(
            f"engine must be {OPENVINO!r} or a folder of cascade export, got {engine!r}."
        )
    if importlib.util.find_spec("openvino") is None:
        raise ContractError(
            f"the engine openvino is not installed; run {install_command(OPENVINO)}."
        )


def _network_digests(chain: StageChain) -> dict[str, str]:
    return {name: network_digest(stage) for name, stage in exported_stages(chain).items()}


def _with_export(
    chain: StageChain, folder: Path, digests: dict[str, str], compiled: Path | None
) -> StageChain:
    """The chain whose networks are those of an exported folder, after checking that they fit."""
    records = _checked_record(folder, digests)["stages"]

    def network_of(name: str, original: StageNetwork) -> OpenVINONetwork:
        own = records[name]
        return OpenVINONetwork(original, folder / own["file"], own["inputs"], compiled)

    return _with_networks(chain, network_of)


def _with_networks(
    chain: StageChain, network_of: Callable[[str, StageNetwork], OpenVINONetwork]
) -> StageChain:
    stages: dict[str, Stage] = dict(chain.items())
    for name, stage in exported_stages(chain).items():
        stages[name] = stage.with_network(network_of(name, stage.network))
    return chain.of(stages)


def _kept_export(chain: StageChain, digests: dict[str, str]) -> Path:
    """The export of stages of these names and weights by this version in the user's cache.

    It is made if there is none.
    """
    root = _kept_folder(__version__)
    if root is None:
        raise ContractError(
            f"the user's cache cannot be written, so that nothing can be kept there; set "
            f"{CACHE_VARIABLE}, or give a folder of cascade export as the engine."
        )
    folder = root / hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:32]
    if not (folder / RECORD).is_file():
        logger.info("exporting the networks to openvino, once")
        export_networks(chain, OPENVINO, folder)
    return folder


def _kept_folder(name: str) -> Path | None:
    """A folder of the engine in the user's cache; None if it cannot be written."""
    root = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache")
    folder = root / "cascade" / OPENVINO / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _checked_record(folder: Path, digests: dict[str, str]) -> dict[str, Any]:
    """The record of an exported folder, after checking that it fits the stages.

    Raises:
        ContractError: if it was exported for another engine, version or pipeline.
        WeightsError: if the record is missing or damaged.
    """
    record = read_json(folder / RECORD)
    again = "export the pipeline again"
    if record.get("format") != OPENVINO:
        raise ContractError(
            f"{folder} was exported to {record.get('format')}, which Cascade does not run; export "
            f"the pipeline to {OPENVINO}."
        )
    if record.get("version") != __version__:
        raise ContractError(
            f"{folder} was exported by version {record.get('version')} of Cascade, and this is "
            f"{__version__}; {again}."
        )
    stages = record.get("stages")
    if not isinstance(stages, dict):
        raise WeightsError(f"{folder / RECORD} names no stages; {again}.")
    for name, digest in digests.items():
        exported = stages.get(name, {}).get("weights")
        if exported != digest:
            text = "no" if exported is None else "other"
            raise ContractError(
                f"{folder} holds {text} weights of stage {name!r} ({str(exported)[:12]} instead of "
                f"{digest[:12]}); {again}."
            )
    return record
