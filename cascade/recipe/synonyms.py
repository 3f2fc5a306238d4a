"""Words of other tools for our names, which messages about unknown names suggest.

Nothing is read through them: a synonym stays an unknown name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Synonym(NamedTuple):
    """What a word of other tools is called here.

    Attributes:
        name: our name, such as `train.learning_rate`.
        note: how its value differs, as a relative clause; empty if it does not.
    """

    name: str
    note: str = ""

    def question(self) -> str:
        """The suggestion as the end of a message."""
        return f"did you mean {self.name!r}{self.note and f', {self.note}'}?"


def synonyms_of(words: Mapping[Synonym, str]) -> dict[str, Synonym]:
    """Make a table by word from one by our names.

    Args:
        words: the words of other tools for each name, separated by spaces.
    """
    return {word: synonym for synonym, line in words.items() for word in line.split()}


LIKENESS = 0.6  # of two keys of a section; at 0.5, "size" is like "outside"
STEPS = "which counts images (steps times train.batch_size)"
EPOCHS = "which counts images (epochs times the number of images)"
RECIPE_KEYS = synonyms_of(
    {
        Synonym("train.learning_rate"): "lr max_lr base_lr",
        Synonym("train.batch_size"): "batch bs train_batch_size",
        Synonym("train.images", EPOCHS): "epochs num_epochs max_epochs num_train_epochs",
        Synonym("train.images", STEPS): "steps max_steps num_steps total_steps train_steps "
        "max_train_steps num_train_steps train_num_steps iterations max_iterations max_iters",
        Synonym("train.warmup_images", STEPS): "warmup warmup_steps lr_warmup_steps",
        Synonym("train.accumulation_steps"): "gradient_accumulation gradient_accumulation_steps "
        "grad_accum accumulate_grad_batches gradient_accumulate_every",
        Synonym("train.optimiser"): "optimizer optim",
        Synonym("train.schedule"): "lr_scheduler lr_schedule scheduler",
        Synonym("train.weight_decay"): "wd",
        Synonym("train.gradient_clip"): "grad_clip clip_grad clip_grad_norm max_grad_norm",
        Synonym("train.ema_decay"): "ema ema_rate ema_beta",
        Synonym("train.objective"): "loss loss_type",
        Synonym("train.precision", "which is auto, fp32 or bf16"): "mixed_precision dtype amp fp16 "
        "bf16 half",
        Synonym("train.checkpoint_every_images", STEPS): "save_every save_steps save_interval "
        "checkpointing_steps checkpoint_every save_and_sample_every",
        Synonym("train.sample_every_images", STEPS): "sample_every validation_steps",
        Synonym("train.keep_checkpoints"): "save_total_limit checkpoints_total_limit",
        Synonym("train.workers"): "num_workers dataloader_num_workers",
        Synonym("train.trackers", "a list such as [wandb]"): "logger report_to wandb log_with",
        Synonym("train.init_from"): "pretrained finetune_from init",
        Synonym("train.init_from", "which starts a new run; repeating a command resumes its run"): (
            "checkpoint ckpt resume resume_from resume_from_checkpoint"
        ),
        Synonym("space.size_px"): "resolution image_size img_size size",
        Synonym("space.channels"): "in_channels image_channels",
        Synonym("data.path"): "data dataset data_dir data_path root folder train_data_dir",
        Synonym("data.crop_px"): "crop crop_size random_crop",
        Synonym("data.flip"): "random_flip hflip horizontal_flip",
        Synonym("network"): "model unet architecture",
        Synonym("network.channels"): "dim dim_mults num_channels model_channels channel_mult",
        Synonym("network.blocks"): "num_res_blocks layers_per_block",
        Synonym("network.depth"): "layers num_layers",
        Synonym("network.width"): "hidden_size",
        Synonym("diffusion.schedule"): "beta_schedule noise_schedule",
        Synonym("diffusion.train_steps"): "num_timesteps num_train_timesteps diffusion_steps",
        Synonym("diffusion.prediction"): "prediction_type parameterization parametrization",
        Synonym("diffusion.min_snr_gamma"): "snr_gamma",
        Synonym("condition.labels"): "class_cond num_classes",
        Synonym("condition.labels.drop"): "cond_drop_prob class_dropout",
        Synonym("sampling.guidance"): "guidance_scale cfg cfg_scale",
        Synonym("sampling.steps"): "num_inference_steps sampling_steps sampling_timesteps",
    }
)


def suggest_key(
    location: tuple[str, ...],
    names: Iterable[str],
    others: Mapping[str, list[str]],
    synonyms: Mapping[str, Synonym],
) -> str | None:
    """Suggest a key for an unknown one, if there is more to say than which key is spelt alike.

    Args:
        location: the keys that lead to the unknown one, and itself.
        names: the keys of that section.
        others: the full names of the keys of all sections, by their last part.
        synonyms: words of other tools.

    Returns:
        For example `did you mean 'train.learning_rate'?`; None if there is no such key.
    """
    *sections, word = (part.strip().lower().replace("-", "_") for part in location)
    synonym = synonyms.get(word)
    same_section = synonym is not None and synonym.name.split(".")[0] in sections
    if synonym is not None and (same_section or not sections):
        return synonym.question()
    places = others.get(word, []) if len(sections) < 2 else []
    if places and ".".join(location) not in places:  # else it belongs to another kind of section
        return f"did you mean {' or '.join(map(repr, places))}?"
    if difflib.get_close_matches(word, names, cutoff=LIKENESS):
        return None
    return None if synonym is None else synonym.question()
