"""OpenVINONetwork: a stage's network that OpenVINO runs on the CPU.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Slots
from cascade.engines.flat_network import IMAGE, TIME, flattened
from cascade.errors import ContractError, WeightsError
from cascade.networks.stage_network import StageNetwork

PRECISIONS = {True: "bf16", False: "f32"}  # by whether torch would compute in bf16


@final
class OpenVINONetwork(StageNetwork):
    """A network whose predictions OpenVINO computes; everything else stays with the original.

    Args:
        original: the network that was exported.
        file: the exported file; None for a dry run, in which it predicts nothing.
        names: names of its inputs, in order.
        compiled: folder where compiled networks are kept, which makes later starts quicker; None
            to keep none.

    Raises:
        WeightsError: if the file cannot be read.
    """

    kind = "openvino"
    no_deep_features = "the engine openvino runs whole networks only"

    def __init__(
        self,
        original: StageNetwork,
        file: Path | None = None,
        names: Sequence[str] = (),
        compiled: Path | None = None,
    ) -> None:
        super().__init__(original.size_multiple_px)
        self.original = original
        self.names = list(names)
        self._cache = {} if compiled is None else {"CACHE_DIR": str(compiled)}
        self._compiled: dict[str, Any] = {}  # by precision, when it is first used
        self._model = None if file is None else _read(file, len(self.names))

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        self.check_size(x_t)
        if x_t.device.type != "cpu":
            raise ContractError(
                f"the engine openvino computes on the CPU, and the stage is on {x_t.device}; move "
                "the pipeline with .to('cpu')."
            )
        tensors = {IMAGE: x_t, TIME: t, **flattened(self.original.prepared(signals))}
        inputs = [_array(tensors[name]) for name in self.names]
        compiled = self._for_precision(PRECISIONS[torch.is_autocast_enabled("cpu")])
        return torch.from_numpy(compiled(inputs)[0].copy())

    def _for_precision(self, precision: str) -> Any:
        """The model, compiled for a precision and as many threads as torch has."""
        assert self._model is not None, "a dry run predicts nothing"
        if precision not in self._compiled:
            options = {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
                **self._cache,
            }
            self._compiled[precision] = _core().compile_model(self._model, "CPU", options)
        return self._compiled[precision]

    def prepared(self, signals: Signals) -> Signals:
        return self.original.prepared(signals)

    def check(self, channels: int, out_channels: int, slots: Mapping[str, Slots]) -> None:
        self.original.check(channels, out_channels, slots)

    def config(self) -> dict[str, Any]:
        raise WeightsError(
            "a stage that runs on openvino cannot be saved; save the one that it was made from."
        )

    def components(self) -> dict[str, nn.Module]:
        return self.original.components()

    @classmethod
    def component_classes(cls, config: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
        raise WeightsError("networks of the engine openvino are not saved.")

    @classmethod
    def of_components(
        cls, components: Mapping[str, nn.Module], config: Mapping[str, Any]
    ) -> OpenVINONetwork:
        raise WeightsError("networks of the engine openvino are not saved.")

    @property
    def trunk(self) -> nn.Module:
        return self.original.trunk

    @property
    def has_attention(self) -> bool:
        return self.original.has_attention

    def bytes_at_once(self, side_px: int) -> int:
        return self.original.bytes_at_once(side_px)


@cache
def _core() -> Any:
    """OpenVINO's core, which all networks share and which lives as long as the process.

    A core gives its thread another stack for signals, and gives back the one before when it ends.
    If two end in the order in which they began, the thread is left with a stack that is no longer
    there, and the next signal that Python handles (Ctrl-C, the end of a worker that loads data)
    is a segmentation fault.
    """
    import openvino  # pyright: ignore[reportMissingImports]

    return openvino.Core()


def _read(file: Path, inputs: int) -> Any:
    """Read an exported file.

    Raises:
        WeightsError: if it cannot be read, or has another number of inputs.
    """
    try:
        model = _core().read_model(file)
    except RuntimeError as error:
        raise WeightsError(f"{file} is damaged or missing; export it again.") from error
    if len(model.inputs) != inputs:
        raise WeightsError(f"{file} has other inputs than its record; export it again.")
    return model


def _array(tensor: Tensor) -> Any:
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    return tensor.contiguous().numpy()
