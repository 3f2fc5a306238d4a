"""Names that users of diffusers type and that Cascade has under other names, or not at all."""

from __future__ import annotations

from collections.abc import Iterable

from cascade.errors import ContractError, nearest

PROMPT_ONLY = "use prompt; each stage names the text encoder that it was trained with"
ENCODER = "stages name their text encoder, see pipeline.stages[name].conditions"
FROM_STAGES = "the size follows from the stages or the image; to change it use upscale"
IN_STAGES = "the parts of a stage are in pipeline.stages[name]"
AUTOENCODER = "an autoencoder is a stage of its own, see pipeline.stages"
FAST_ATTENTION = "PyTorch's fast attention is always used"
TILES = "memory follows from batch_size in a call and tile_px in upscale"
STARTS = "use edit(image, strength=0.5)"
STOP = "raise an exception in the callback to stop a call"

ARGUMENTS = {  # of a call
    "num_inference_steps": "use steps",
    "guidance_scale": "use guidance",
    "num_images_per_prompt": "use num_images; in a list of prompts, repeat each instead",
    "batch_count": "use num_images",
    "scheduler": "use sampler",
    "prompt": "use inputs={'prompt': ['a cat']}",
    "prompt_embeds": PROMPT_ONLY,
    "negative_prompt": "use inputs={'negative_prompt': ['a dog']}",
    "negative_prompt_embeds": PROMPT_ONLY,
    "text": "use prompt",
    "class_labels": "use labels",
    "labels": "use inputs={'labels': [{'class': 'cat'}]}",
    "scale": FROM_STAGES,
    "height": FROM_STAGES,
    "width": FROM_STAGES,
    "latents": "noise follows from seed or generator",
    "strength": STARTS,
    "mask_image": "use edit(image, mask)",
    "mask": "use edit(image, mask)",
    "timesteps": "use steps and sampler",
    "sigmas": "use steps and sampler",
    "noise_level": "use augmentation_level",
    "callback": "use callback_on_step_end",
    "callback_steps": "use callback_on_step_end, which is called after every step",
    "cross_attention_kwargs": "attention has no options",
    "clip_skip": PROMPT_ONLY,
}
LOADING = {  # of from_pretrained
    "variant": "there is one set of weights; use dtype to convert it",
    "subfolder": "name the folder of the pipeline itself",
    "device": "use device_map, or .to(device) afterwards",
    "scheduler": "use sampler in a call, or with_sampling",
    "unet": "use replace_stage",
    "vae": AUTOENCODER,
    "text_encoder": ENCODER,
    "tokenizer": ENCODER,
    "safety_checker": "there is none",
    "requires_safety_checker": "there is none",
    "custom_pipeline": "the class is always CascadePipeline",
    "trust_remote_code": "no code of the folder is run",
    "low_cpu_mem_usage": "weights are always read one stage at a time",
    "max_memory": "stages are not split over devices",
    "offload_folder": "stages are not split over devices; use enable_model_cpu_offload",
    "offload_state_dict": "stages are not split over devices; use enable_model_cpu_offload",
    "quantization_config": "weights are not quantised; use dtype",
    "output_loading_info": "every tensor must be present, or loading fails",
}
ATTRIBUTES = {  # of a pipeline
    "scheduler": "use sampler in a call, or with_sampling for another default",
    "unet": f"{IN_STAGES}; use replace_stage to exchange one",
    "transformer": f"{IN_STAGES}; use replace_stage to exchange one",
    "vae": AUTOENCODER,
    "text_encoder": ENCODER,
    "tokenizer": ENCODER,
    "image_processor": "use output_type to choose what a call returns",
    "safety_checker": "there is none",
    "_interrupt": STOP,
    "interrupt": STOP,
    "guidance_scale": "use guidance in a call, or with_sampling for another default",
    "do_classifier_free_guidance": "guidance above 1 in a call turns it on",
    "cuda": "use .to('cuda')",
    "cpu": "use .to('cpu')",
    "half": "use .to(torch.bfloat16)",
    "float": "use .to(torch.float32)",
    "eval": "pipelines only sample",
    "train": "use Trainer on one of its stages",
    "enable_attention_slicing": FAST_ATTENTION,
    "disable_attention_slicing": FAST_ATTENTION,
    "set_attention_slice": FAST_ATTENTION,
    "enable_xformers_memory_efficient_attention": FAST_ATTENTION,
    "disable_xformers_memory_efficient_attention": FAST_ATTENTION,
    "set_use_memory_efficient_attention_xformers": FAST_ATTENTION,
    "enable_vae_slicing": f"{AUTOENCODER}; {TILES}",
    "disable_vae_slicing": f"{AUTOENCODER}; {TILES}",
    "enable_vae_tiling": f"{AUTOENCODER}; {TILES}",
    "disable_vae_tiling": f"{AUTOENCODER}; {TILES}",
    "enable_sequential_cpu_offload": "use enable_model_cpu_offload, which moves whole stages",
    "enable_group_offload": "use enable_model_cpu_offload, which moves whole stages",
    "enable_freeu": "stages have no FreeU",
    "fuse_qkv_projections": "nothing is fused",
    "load_lora_weights": "use pipeline.with_adapter(folder, scale), which returns a pipeline",
    "load_ip_adapter": "use a condition of your own",
    "load_textual_inversion": "text encoders stay as they are",
    "encode_prompt": PROMPT_ONLY,
    "reset_device_map": "use .to(device)",
}


def check_arguments(names: Iterable[str], known: Iterable[str], familiar: dict[str, str]) -> None:
    """Check that all arguments exist.

    Args:
        names: the names that a caller gave.
        known: the names that exist.
        familiar: what to do instead of names of diffusers that do not exist here.

    Raises:
        ContractError: with what to do instead, or the nearest name.
    """
    known = list(known)
    for name in names:
        if name in known:
            continue
        if name in familiar:
            raise ContractError(f"no argument {name!r}: {familiar[name]}.")
        raise ContractError(f"unknown argument {name!r}: {nearest(name, known)}")


def attribute_text(name: str, known: Iterable[str]) -> str:
    """The error message for an attribute that a pipeline does not have."""
    if name in ATTRIBUTES:
        return f"a CascadePipeline has no {name}: {ATTRIBUTES[name]}."
    return f"a CascadePipeline has no attribute {name!r}: {nearest(name, known)}"


def setting_text(name: str, *, exists: bool) -> str:
    """The error message for an attribute of a pipeline that cannot be set."""
    if name in ATTRIBUTES or not exists:
        return attribute_text(name, ["stages"])
    return f"{name} of a CascadePipeline cannot be set; only stages can."
