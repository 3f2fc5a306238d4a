"""Stage: one independently trained diffusion model with a contract.

Shapes: B batch, C channels, H and W pixels, h and w pixels of the image that the stage takes, F
label fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cascade.conditioning.conditions import Conditions
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.grey import luminance
from cascade.conditioning.labels import LabelVocabulary
from cascade.conditioning.low_resolution import augment, blur, quantise, resize
from cascade.contract import Contract
from cascade.data.batch import Batch
from cascade.devices import Precision, autocast
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.errors import CascadeError, ContractError, WeightsError, nearest
from cascade.networks.embedding import ConditionEmbedding
from cascade.networks.stage_network import NETWORKS, StageNetwork
from cascade.sampling.guidance import guide
from cascade.sampling.samplers.all import PairSampler, Sampler, make_sampler
from cascade.sampling.settings import SamplingSettings
from cascade.saving.atomic import atomic_folder
from cascade.saving.stage_folder import STAGE_ENTRIES, read_stage, write_stage

StepCallback = Callable[[int, int, dict[str, Tensor]], Mapping[str, Tensor] | None]


class Stage(nn.Module):
    """A network, its noise process, its conditions and its contract.

    Args:
        network: the stage network.
        process: schedule, prediction, weighting.
        contract: what goes in and out.
        labels: names of the classes, or None for a stage without labels.
        label_drop: probability in training that an image loses its labels, which guidance needs;
            with several fields, each is also dropped on its own with it.
        image_drop: probability in training that the image that the stage takes is left out.
        blur_probability: of a low-resolution image to be blurred in training.
        degradation: of low-resolution images in training; None for none.
        sampling: how to sample unless told otherwise.

    Raises:
        ContractError: if a part is missing or not wanted.
    """

    def __init__(
        self,
        network: StageNetwork,
        process: NoiseProcess,
        contract: Contract,
        *,
        labels: LabelVocabulary | None = None,
        label_drop: float = 0.1,
        image_drop: float = 0.0,
        blur_probability: float = 0.0,
        degradation: Degradation | None = None,
        sampling: SamplingSettings | None = None,
    ) -> None:
        super().__init__()
        wanted = contract.channels * (2 if process.learned_variance else 1)
        channels = (contract.channels + contract.image_channels, wanted)
        if channels != network.channels:
            taken, given = network.channels
            raise ContractError(
                f"the contract asks for {channels[0]} channels in and {channels[1]} out, the "
                f"network has {taken:g} and {given:g}."
            )
        sizes = [] if labels is None else labels.sizes
        embedding = network.embedding
        embedded = [] if embedding is None else embedding.label_sizes
        if sizes != embedded:
            raise ContractError(f"labels have {sizes} names, the network was made for {embedded}.")
        takes_level = embedding is not None and embedding.level_embedding is not None
        if takes_level != contract.takes_image:
            raise ContractError("contract and network disagree whether the stage takes an image.")
        if network.encoder is not None and not contract.takes_image:
            raise ContractError("encoder_channels are for stages that take an image.")
        disturbs = blur_probability > 0 or degradation is not None
        if disturbs and contract.takes != "low_res":
            raise ContractError(
                "blur_probability and degradation are for stages that take a low-resolution image."
            )
        if process.residual is not None and (not contract.takes_image or image_drop > 0):
            raise ContractError(
                "residual_std is for stages that take an image, and with image_drop 0."
            )
        self.network = network
        self.process = process
        self.contract = contract
        self.labels = labels
        self.label_drop = label_drop if labels is not None else 0.0
        self.image_drop = image_drop if contract.takes_image else 0.0
        self.blur_probability = blur_probability
        self.degradation = degradation
        self.sampling = sampling or SamplingSettings()
        if contract.takes_image:
            contract.check_augmentation_level(self.sampling.augmentation_level)

    @classmethod
    def build(
        cls,
        contract: Contract,
        process: NoiseProcess,
        *,
        network: str = "unet",
        network_options: Mapping[str, Any] | None = None,
        labels: LabelVocabulary | None = None,
        embedding_dim: int = 256,
        **options: Any,
    ) -> Stage:
        """Make a stage with a new, untrained network.

        Args:
            contract: what goes in and out.
            process: schedule, prediction, weighting.
            network: `unet` or `transformer`.
            network_options: arguments of its `build`.
            labels: names of the classes, or None.
            embedding_dim: length of the condition vector.
            options: further arguments of `Stage`.
        """
        if network not in NETWORKS:
            raise ContractError(f"unknown network {network!r}: {nearest(network, NETWORKS)}")
        embedding = None
        if labels is not None or contract.takes_image:
            embedding = ConditionEmbedding(
                label_sizes=labels.sizes if labels is not None else [],
                level=contract.takes_image,
                dim=embedding_dim,
            )
        built = NETWORKS[network].build(
            embedding,
            in_channels=contract.channels + contract.image_channels,
            out_channels=contract.channels * (2 if process.learned_variance else 1),
            size_px=contract.size_px,
            **(network_options or {}),
        )
        return cls(built, process, contract, labels=labels, **options)

    @property
    def is_upsampler(self) -> bool:
        """Whether the stage takes a low-resolution image."""
        return self.contract.takes == "low_res"

    @property
    def size_taken(self) -> str:
        """The size of the images that the stage takes in a pipeline, in words."""
        if self.contract.takes == "grey":
            return f"sides that are multiples of {self.network.size_multiple_px}"
        return f"{self.contract.low_res_px}x{self.contract.low_res_px}"

    def takes_size(self, height: int, width: int) -> bool:
        """Whether the stage takes images of that size in a pipeline; a base stage takes none."""
        if self.contract.takes == "grey":
            multiple = self.network.size_multiple_px
            return height % multiple == 0 and width % multiple == 0
        return height == width == self.contract.low_res_px

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    # ---- training -------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, timesteps: Tensor | None = None) -> Tensor:
        """The training loss of each image.

        Timesteps, noise, augmentation levels and drops are drawn per image from the batch's seeds.

        Args:
            batch: images (B, C, H, W) in [-1, 1], and labels and low-resolution images as the stage
                needs them.
            timesteps: (B,) int64 in [0, T), instead of drawn ones; all else is drawn as without.

        Returns:
            (B,), differentiable.

        Raises:
            ContractError: if the images do not fit the contract.
        """
        x0 = batch.images
        self._check_images(x0)
        if len(batch.seeds) != len(batch):
            raise ContractError(f"got {len(batch.seeds)} seeds for {len(batch)} images.")
        noise = SeededNoise(batch.seeds, "train", device=x0.device)
        drawn = self.process.draw_timesteps(noise.uniform().view(-1))
        t = drawn if timesteps is None else timesteps.to(x0.device)
        eps = noise.normal(*x0.shape[1:])
        conditions = self._training_conditions(batch, noise)
        x_t = self.process.schedule.add_noise(x0, eps, t)
        output = self.predict(x_t, t, conditions)
        return self.process.loss(output, x0, x_t, eps, t)

    def forward(self, batch: Batch) -> Tensor:
        """The same as `loss`, so that wrappers of modules (DDP, FSDP, autocast) see training."""
        return self.loss(batch)

    def predict(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """What the stage says of noisy images, in the quantity that its process predicts.

        Args:
            x_t: (B, C, H, W).
            t: (B,) timesteps.
            conditions: of the batch.

        Returns:
            (B, C, H, W), or 2 C channels with learned variances.
        """
        residual, base = self.process.residual, conditions.image
        if residual is None or base is None:
            return self.network(x_t, t, conditions)
        output = self.network(residual.network_input(x_t, base, t), t, conditions)
        return residual.x0(output.float(), x_t, base, t)

    def _training_conditions(self, batch: Batch, noise: SeededNoise) -> Conditions:
        labels = batch.labels
        if self.labels is not None and labels is None:
            raise ContractError("this stage is class-conditional, but the batch has no labels.")
        image = level = None
        taken = self.image_of(batch)
        if taken is not None:
            if self.degradation is not None:
                kernel = self.contract.resize_kernel
                taken = self.degradation.apply(batch.images, taken, kernel, batch.seeds)
                taken = self.as_taken(taken)
            if self.blur_probability > 0:
                taken = blur(taken, noise.uniform(2), self.blur_probability)
            low, high = self.contract.augmentation_range
            level = low + (high - low) * noise.uniform().view(-1)
            image = self._conditioning_image(taken, level, noise, batch.images.shape[-2:])
        fields_count = 0 if self.labels is None else len(self.labels.sizes)
        drop = noise.uniform(2 + fields_count)  # (B, 2 + F)
        drop_labels = drop[:, 1:2] < self.label_drop
        if fields_count > 1:
            drop_labels = drop_labels | (drop[:, 2:] < self.label_drop)
        conditions = Conditions(labels if self.labels is not None else None, image, level)
        return conditions.dropped(labels=drop_labels, image=drop[:, 0] < self.image_drop)

    def image_of(self, batch: Batch) -> Tensor | None:
        """The image that the stage takes, of each image of a training batch.

        Args:
            batch: of the stage.

        Returns:
            The luminance (B, 1, H, W) or the low-resolution image (B, C, h, w), undisturbed, as it
            is given when sampling; None for a base stage.

        Raises:
            ContractError: if the batch's low-resolution images have another size.
        """
        if self.contract.takes == "grey":
            return self.as_taken(batch.images)
        return self.as_taken(self._low_res_of(batch)) if self.is_upsampler else None

    def _low_res_of(self, batch: Batch) -> Tensor:
        low_res = batch.low_res
        height, width = (side // self.contract.scale for side in batch.images.shape[-2:])
        if low_res is None:
            low_res = resize(batch.images, (height, width), self.contract.resize_kernel)
        if tuple(low_res.shape[-2:]) != (height, width):
            raise ContractError(
                f"low-resolution images must be {width}x{height} px, got "
                f"{low_res.shape[-1]}x{low_res.shape[-2]}."
            )
        return low_res

    def as_taken(self, image: Tensor) -> Tensor:
        """Colour and range of an image as the stage takes it, in training and sampling alike.

        Args:
            image: (B, C, h, w) in [-1, 1].

        Returns:
            (B, C, h, w), or its luminance (B, 1, h, w) for a stage that takes grey, rounded if the
            contract says so.
        """
        if self.contract.takes == "grey":
            image = luminance(image)
        return quantise(image) if self.contract.quantised else image.clamp(-1, 1)

    def _conditioning_image(
        self, taken: Tensor, level: Tensor, noise: SeededNoise, size_px: Sequence[int]
    ) -> Tensor:
        """Augment the taken image once and enlarge it; the same in training and sampling."""
        augmented = augment(taken, level, noise.normal(*taken.shape[1:]))
        if tuple(augmented.shape[-2:]) == tuple(size_px):
            return augmented
        height, width = size_px
        return nn.functional.interpolate(augmented, size=(height, width), mode="bicubic")

    def _check_taken(self, image: Tensor) -> None:
        """Check the channels of an image to start from."""
        if self.contract.takes != "grey":
            self._check_images(image)
        elif image.ndim != 4 or image.shape[1] not in (1, 3):
            raise ContractError(
                "images to colour must be (B, 1, H, W), or (B, 3, H, W) of which the luminance is "
                f"taken, got {tuple(image.shape)}."
            )

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.contract.channels:
            raise ContractError(
                f"images must be (B, {self.contract.channels}, H, W), got {tuple(images.shape)}."
            )

    # ---- sampling -------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        image: Tensor | None = None,
        settings: SamplingSettings | None = None,
        start_from: Tensor | None = None,
        strength: float = 1.0,
        stream: str = "sample",
        precision: Precision = "fp32",
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Draw images, one per seed; the same seed gives the same image at any batch size.

        Args:
            seeds: one integer per image.
            labels: (B, F) int64, -1 for "any"; None drops all labels.
            image: (B, C, h, w) in [-1, 1], what an upsampler enlarges or a colourising stage
                colours, of any size that the network can take; of a colour image, a colourising
                stage takes the luminance.
            settings: default: the stage's own.
            start_from: (B, C, H, W) in [-1, 1], images to change instead of drawing new ones
                (SDEdit); for the samplers ddim and ddpm.
            strength: of that change, in (0, 1]: the part of the steps that are taken.
            stream: name of the random stream; stages of a pipeline have different ones.
            precision: `fp32`, `bf16`, or `auto`.
            callback: called after every step with step, timestep and `{"x_t", "x0"}`; may return a
                new `x_t`.

        Returns:
            (B, C, H, W) float32 in [-1, 1].

        Raises:
            ContractError: if conditions or settings do not fit the contract.
        """
        settings = settings or self.sampling
        self.check_settings(settings)
        noise = SeededNoise(seeds, stream, device=self.device)
        size = self.output_size(image)
        conditions = self.sampling_conditions(len(seeds), labels, image, settings, noise, size)
        sampler = make_sampler(
            settings.sampler, self.process, settings.steps, **settings.sampler_options()
        )
        if precision == "auto" and self.dtype != torch.float32:
            precision = "fp32"  # the weights have a precision of their own
        with autocast(self.device, precision):
            conditions = self.network.seen(conditions)
        noise.temperature = settings.temperature
        fresh, first = noise.normal(self.contract.channels, *size), 0
        if start_from is None:
            state = sampler.start(fresh)
        else:
            state, first = self._started(sampler, start_from, fresh, strength)
        for index, t in list(enumerate(sampler.timesteps))[first:]:
            x_t = sampler.network_input(state, index)
            with autocast(self.device, precision):
                output = self.guided_output(x_t, t, conditions, settings.guidance)
            state, x0 = sampler.step(output.float(), state, index, noise)
            if callback is not None:
                state = (callback(index, t, {"x_t": state, "x0": x0}) or {}).get("x_t", state)
        return state.clamp(-1, 1)

    def _started(
        self, sampler: Sampler, images: Tensor, noise: Tensor, strength: float
    ) -> tuple[Tensor, int]:
        if not isinstance(sampler, PairSampler):
            raise ContractError("only the samplers ddim and ddpm can start from an image.")
        if images.shape != noise.shape:
            raise ContractError(
                f"start_from must be {tuple(noise.shape)}, got {tuple(images.shape)}."
            )
        if not 0 < strength <= 1:
            raise ContractError(f"strength must be above 0 and at most 1, got {strength}.")
        return sampler.start_from(images.to(noise), noise, strength)

    def check_settings(self, settings: SamplingSettings) -> None:
        """Check, before any work is done, that the stage can sample like this.

        Raises:
            ContractError: naming the setting that does not fit.
        """
        make_sampler(settings.sampler, self.process, settings.steps, **settings.sampler_options())
        if self.contract.takes_image:
            self.contract.check_augmentation_level(settings.augmentation_level)
        if settings.temperature != 1 and not self.contract.takes_image:
            raise ContractError(
                f"temperature {settings.temperature} is for stages that take an image; without one "
                "only noise of 1 is what the stage was trained on."
            )
        if not math.isfinite(settings.guidance):
            raise ContractError(f"guidance must be a finite number, got {settings.guidance}.")
        if settings.guidance != 1 and self.label_drop == 0 and self.image_drop == 0:
            raise ContractError(
                f"guidance {settings.guidance} needs a stage that was trained with label_drop or "
                "image_drop above 0; use guidance 1."
            )

    def guided_output(self, x_t: Tensor, t: int, conditions: Conditions, scale: float) -> Tensor:
        """The network's output with classifier-free guidance, as one batched forward.

        Args:
            x_t: (B, C, H, W).
            t: timestep of all images.
            conditions: of the batch.
            scale: of the guidance; 1 is none.

        Returns:
            (B, C, H, W), or 2 C channels with learned variances.
        """
        times = torch.full((x_t.shape[0],), t, dtype=torch.long, device=x_t.device)
        if scale == 1:
            return self.predict(x_t, times, conditions)
        # What training dropped is dropped, all else is shared (trap 14).
        without = conditions.dropped(labels=self.label_drop > 0, image=self.image_drop > 0)
        both = self.predict(
            torch.cat([x_t, x_t]), torch.cat([times, times]), conditions.concatenate(without)
        )
        conditional, unconditional = both.float().chunk(2)
        return guide(conditional, unconditional, scale, channels=self.contract.channels)

    def output_size(self, image: Tensor | None) -> tuple[int, int]:
        """Height and width of what the stage gives, of an image that it takes or of none.

        Raises:
            ContractError: if it needs an image, takes none, or not one of those channels.
        """
        if not self.contract.takes_image:
            if image is not None:
                raise ContractError("this stage is a base stage and takes no image.")
            return self.contract.size_px, self.contract.size_px
        if image is None:
            raise ContractError(f"this stage needs an image to start from: {self.contract.taken}.")
        self._check_taken(image)
        height, width = image.shape[-2:]
        return height * self.contract.scale, width * self.contract.scale

    def sampling_conditions(
        self,
        count: int,
        labels: Tensor | None,
        given: Tensor | None,
        settings: SamplingSettings,
        noise: SeededNoise,
        size: tuple[int, int],
    ) -> Conditions:
        """What the network is told when it samples.

        Args:
            count: B.
            labels: (B, F) int64, -1 for "any"; None drops all labels.
            given: (B, C, h, w) in [-1, 1], what the stage takes; None for a base stage.
            settings: whose augmentation level counts.
            noise: of the augmentation.
            size: height and width of the result.

        Raises:
            ContractError: if they do not fit the stage.
        """
        labels = self.checked_labels(labels, count)
        image = level = None
        if given is not None:
            if given.shape[0] != count:
                raise ContractError(f"got {given.shape[0]} images to start from for {count} seeds.")
            level = torch.full((count,), settings.augmentation_level, device=self.device)
            taken = self.as_taken(given.to(self.device, torch.float32))
            image = self._conditioning_image(taken, level, noise, size)
        return Conditions(labels, image, level)

    def checked_labels(self, labels: Tensor | None, count: int) -> Tensor | None:
        """Labels as the network takes them, on the stage's device.

        Args:
            labels: (B, F) int64, -1 for "any"; None for that throughout.
            count: B.

        Raises:
            ContractError: if they do not fit the stage.
        """
        if self.labels is None:
            if labels is not None:
                raise ContractError("this stage has no labels, but labels were given.")
            return None
        wanted = (count, len(self.labels.sizes))
        labels = torch.full(wanted, -1) if labels is None else labels
        if tuple(labels.shape) != wanted:
            raise ContractError(f"labels must be {wanted}, got {tuple(labels.shape)}.")
        for field, (name, classes) in enumerate(
            zip(self.labels.fields, self.labels.sizes, strict=True)
        ):
            if labels[:, field].amin() < -1 or labels[:, field].amax() >= classes:
                raise ContractError(f"indices of {name} must be from -1 to {classes - 1}.")
        return labels.to(self.device)

    # ---- saving and loading ---------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        schedule, process = self.process.schedule, self.process
        return {
            "_class_name": "Stage",
            "network": self.network.component,
            "patch_size": self.network.patch_size,
            "size_multiple_px": self.network.size_multiple_px,
            "encoder": self.network.encoder is not None,
            "contract": self.contract.to_dict(),
            "labels": None if self.labels is None else self.labels.fields,
            "label_drop": self.label_drop,
            "image_drop": self.image_drop,
            "blur_probability": self.blur_probability,
            "degradation": None if self.degradation is None else asdict(self.degradation),
            "schedule": {
                "kind": schedule.kind,
                "train_steps": schedule.train_steps,
                "shift": schedule.shift,
                "zero_terminal_snr": schedule.zero_terminal_snr,
            },
            "process": {
                "prediction": process.prediction,
                "weighting": process.weighting,
                "min_snr_gamma": process.min_snr_gamma,
                "timesteps": process.timesteps,
                "logit_mean": process.logit_mean,
                "logit_std": process.logit_std,
                "learned_variance": process.learned_variance,
                "residual_std": None if process.residual is None else process.residual.std,
            },
            "sampling": asdict(self.sampling),
        }

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the stage in diffusers layout: `stage.json`, network, embedding, scheduler.

        The network's folder can be loaded with plain diffusers, and the scheduler's too.

        Args:
            folder: where to; a folder that stands there is replaced when the new one is complete.
            dtype: of the written tensors; default float32.
        """
        with atomic_folder(Path(folder), owned=STAGE_ENTRIES) as temporary:
            self.write(temporary, dtype=dtype)

    def write(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write into a folder that the caller makes atomic."""
        write_stage(folder, self.network, self.process, self.sampling, self.config(), dtype=dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Stage:
        """Load a stage that `save_pretrained` wrote, on the CPU, in float32.

        Raises:
            WeightsError: if the folder is missing, incomplete, damaged, or not a stage.
        """
        arguments = read_stage(Path(folder))
        try:
            return cls(**arguments).eval()
        except CascadeError as error:  # its parts are right, but do not go together
            raise WeightsError(
                f"{Path(folder) / 'stage.json'} does not describe a stage: {error}"
            ) from error
