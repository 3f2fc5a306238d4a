"""StageNetwork: what a stage asks of its network, and any module of one's own behind it.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

from torch import Tensor, nn

from cascade.conditioning.condition import Slots
from cascade.conditioning.signals import Signals
from cascade.errors import ContractError, WeightsError, nearest


class StageNetwork(nn.Module, ABC):
    """A network that is called as `network(x_t, t, signals)`.

    Args:
        size_multiple_px: image sides must be multiples of it.
    """

    kind: str

    def __init__(self, size_multiple_px: int) -> None:
        super().__init__()
        self.size_multiple_px = size_multiple_px

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        """Predict.

        Args:
            x_t: (B, C, H, W) noisy images.
            t: (B,) training timesteps.
            signals: of the conditions, with images at the size of x_t.

        Returns:
            (B, C, H, W), or 2 C channels with learned variances.

        Raises:
            ContractError: if height or width does not fit the network.
        """

    @abstractmethod
    def check(self, channels: int, out_channels: int, slots: Mapping[str, Slots]) -> None:
        """Check that the network has room for what a stage gives it.

        Args:
            channels: of the noisy image.
            out_channels: of the prediction.
            slots: of the conditions.

        Raises:
            ContractError: naming the condition or the number that does not fit.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain values that `of_components` needs besides the components.

        Raises:
            WeightsError: if the network could not be built again from what would be saved.
        """

    @abstractmethod
    def components(self) -> dict[str, nn.Module]:
        """The parts that are saved, each in a folder of its name."""

    @classmethod
    @abstractmethod
    def component_classes(cls, config: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
        """The classes of the saved parts, by name.

        Raises:
            WeightsError: if one is not there.
        """

    @classmethod
    @abstractmethod
    def of_components(
        cls, components: Mapping[str, nn.Module], config: Mapping[str, Any]
    ) -> StageNetwork:
        """Put the saved parts together again."""

    def prepared(self, signals: Signals) -> Signals:
        """Do once what would otherwise be done at every step: enlarge images, look at them."""
        return signals.enlarged()

    @property
    def trunk(self) -> nn.Module:
        """The part that training compiles, shards and saves memory in."""
        return self

    @property
    def has_attention(self) -> bool:
        """Whether the output at one place depends on all others, however far away."""
        return any("Attention" in type(module).__name__ for module in self.modules())

    def bytes_at_once(self, side_px: int) -> int:
        """An estimate of the memory that one square image needs while the network works."""
        return 4 * 64 * side_px**2

    def check_size(self, x_t: Tensor) -> None:
        """Check height and width of (B, C, H, W).

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
    """A module of one's own as a stage network.

    Args:
        module: called as `module(x_t, t, signals)`; it concatenates and embeds the signals itself.
            To be saved, its class stands in `MODULES` under `kind`, and its attribute `config`
            holds the keyword arguments of its constructor as plain values.
    """

    kind = "plain"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(getattr(module, "size_multiple_px", 1))
        self.module = module

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        self.check_size(x_t)
        return self.module(x_t, t, signals.enlarged())

    def check(self, channels: int, out_channels: int, slots: Mapping[str, Slots]) -> None:
        """Nothing to check: the module decides what it does with the signals."""

    def config(self) -> dict[str, Any]:
        names = [name for name, kind in MODULES.items() if kind is type(self.module)]
        if not names or not isinstance(getattr(self.module, "config", None), dict):
            raise WeightsError(
                f"{type(self.module).__name__} could not be loaded again: enter its class into "
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


MODULES: dict[str, type[nn.Module]] = {}  # modules of one's own that can be loaded again, by name


def as_network(module: nn.Module) -> StageNetwork:
    """A stage network as it is, any other module behind a `PlainNetwork`."""
    return module if isinstance(module, StageNetwork) else PlainNetwork(module)
