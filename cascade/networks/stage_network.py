"""StageNetwork: the interface of a stage's network; and PlainNetwork, which wraps any module.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

from torch import Tensor, nn

from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Slots
from cascade.errors import ContractError, WeightsError, nearest
from cascade.networks.component import is_diffusers_model


class StageNetwork(nn.Module, ABC):
    """A network that is called as `network(x_t, t, signals)`.

    Args:
        size_multiple_px: image sides must be multiples of this number of pixels, at least 1.

    Raises:
        ContractError: if it is no whole number of at least 1.
    """

    kind: ClassVar[str]  # the name in `stage.json` and recipes
    no_deep_features: ClassVar[str] = (  # why `reusing` does not work, if it does not
        "only U-Nets of several levels and transformers have features that steps can share"
    )

    def __init__(self, size_multiple_px: int) -> None:
        super().__init__()
        if not isinstance(size_multiple_px, int) or size_multiple_px < 1:
            raise ContractError(
                f"size_multiple_px must be a whole number of at least 1, got {size_multiple_px!r}."
            )
        self.size_multiple_px = size_multiple_px

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        """Predict from noisy images.

        Args:
            x_t: (B, C, H, W) noisy images.
            t: (B,) training timesteps.
            signals: the conditions' signals.

        Returns:
            (B, C, H, W), or 2 C channels with learned variances.

        Raises:
            ContractError: if height or width does not fit the network.
        """

    @abstractmethod
    def check(self, channels: int, out_channels: int, slots: Mapping[str, Slots]) -> None:
        """Check that the network takes the images and conditions of a stage.

        Args:
            channels: number of channels of the noisy image.
            out_channels: number of channels of the prediction.
            slots: how each condition enters, by its name.

        Raises:
            ContractError: naming the condition or the number that does not fit.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain values that `of_components` needs besides the components.

        Raises:
            WeightsError: if the network could not be loaded again from what would be saved.
        """

    @abstractmethod
    def components(self) -> dict[str, nn.Module]:
        """The modules that are saved, each in a folder of its name."""

    @classmethod
    @abstractmethod
    def component_classes(cls, config: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
        """The classes of the saved modules, by name.

        Args:
            config: the plain values that `config` returned.

        Raises:
            WeightsError: if a class is unknown.
        """

    @classmethod
    @abstractmethod
    def of_components(
        cls, components: Mapping[str, nn.Module], config: Mapping[str, Any]
    ) -> StageNetwork:
        """Build the network from its loaded modules and the values of `config`."""

    def prepared(self, signals: Signals) -> Signals:
        """Do the work that all steps share, such as upscaling images and extracting features."""
        return signals.enlarged()

    @property
    def has_deep_features(self) -> bool:
        """Whether `reusing` works."""
        return False

    def reusing(
        self, x_t: Tensor, t: Tensor, signals: Signals, deep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Predict in full, or with the fine blocks only.

        Args:
            x_t: (B, C, H, W) noisy images.
            t: (B,) training timesteps.
            signals: the conditions' signals.
            deep: what the coarse blocks computed for these images at an earlier step; None to run
                them too.

        Returns:
            The prediction, and the output of the coarse blocks from which it was made.
        """
        raise NotImplementedError

    def for_bf16(self) -> StageNetwork:
        """A network with the same results that samples faster under autocast to bfloat16."""
        return self

    @property
    def trunk(self) -> nn.Module:
        """The module that training compiles, shards and checkpoints activations of."""
        return self

    @property
    def has_attention(self) -> bool:
        """Whether an output pixel depends on all input pixels, however far away.

        Attention to tokens alone does not count.
        """
        return any(
            "Attention" in type(module).__name__
            and not getattr(module, "is_cross_attention", False)
            for module in self.modules()
        )

    @property
    def token_weights(self) -> dict[str, list[str]]:
        """Names of the weights that the network has only because it receives tokens, by part.

        While they are new, the output is that of the network without them.
        """
        return {}

    def bytes_at_once(self, side_px: int) -> int:
        """An estimate of the memory in bytes that a forward pass over one square image needs."""
        return 4 * 64 * side_px**2

    def check_size(self, x_t: Tensor) -> None:
        """Check height and width of images (B, C, H, W).

        Raises:
            ContractError: if one is not a multiple of `size_multiple_px`.
        """
        height, width = x_t.shape[-2:]
        if height % self.size_multiple_px or width % self.size_multiple_px:
            raise ContractError(
                f"image sides must be multiples of {self.size_multiple_px} px for this network, "
                f"got {width}x{height}; pad or crop the image."
            )


@final
class PlainNetwork(StageNetwork):
    """Any module as a stage network.

    Args:
        module: called as `module(x_t, t, signals)`, with all images upscaled to the size of x_t; it
            concatenates and embeds the signals itself. An attribute `size_multiple_px` states which
            sizes it takes. To be saved, its class must be in `MODULES`, and its attribute `config`
            must hold the keyword arguments of its constructor as plain values.
    """

    kind = "plain"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(getattr(module, "size_multiple_px", 1))
        self.module = module
        self._out_channels: int | None = None

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        self.check_size(x_t)
        output = self.module(x_t, t, signals.enlarged())
        shape = (len(x_t), self._out_channels or output.shape[1], *x_t.shape[-2:])
        if tuple(output.shape) != shape:
            raise ContractError(
                f"{type(self.module).__name__} must return {shape}, but returned "
                f"{tuple(output.shape)}."
            )
        return output

    def check(self, channels: int, out_channels: int, slots: Mapping[str, Slots]) -> None:
        """Accept all conditions: the module decides what it does with the signals.

        The channels of its output are checked when it runs.
        """
        self._out_channels = out_channels

    def config(self) -> dict[str, Any]:
        module_class = type(self.module)
        names = [name for name, each in MODULES.items() if each is module_class]
        if not names or not _can_build(module_class, getattr(self.module, "config", None)):
            raise WeightsError(
                f"{module_class.__name__} could not be loaded again: add its class to "
                "cascade.networks.stage_network.MODULES, and keep its constructor's keyword "
                "arguments in its attribute `config`."
            )
        return {"module": names[0]}

    def components(self) -> dict[str, nn.Module]:
        return {self.kind: self.module}

    @classmethod
    def component_classes(cls, config: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
        name = config["module"]
        if name not in MODULES:
            raise WeightsError(
                f"network of the kind {name!r} is not in "
                f"cascade.networks.stage_network.MODULES: {nearest(str(name), MODULES)}"
            )
        return {cls.kind: MODULES[name]}

    @classmethod
    def of_components(
        cls, components: Mapping[str, nn.Module], config: Mapping[str, Any]
    ) -> PlainNetwork:
        return cls(components[cls.kind])


MODULES: dict[str, type[nn.Module]] = {}  # classes that a `PlainNetwork` can load again, by name


def as_network(module: nn.Module) -> StageNetwork:
    """Wrap a module in a `PlainNetwork`, unless it is a stage network already."""
    return module if isinstance(module, StageNetwork) else PlainNetwork(module)


def _can_build(module_class: type[nn.Module], config: Any) -> bool:
    """Whether the class can be called with a config after saving and reading it as JSON."""
    if is_diffusers_model(module_class):  # diffusers keeps and reads its own config
        return True
    try:
        inspect.signature(module_class).bind(**json.loads(json.dumps(config)))
    except (TypeError, ValueError):
        return False
    return True
