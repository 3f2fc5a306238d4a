"""ComfyUI nodes that upscale and colourise images; copy this file into `ComfyUI/custom_nodes`.

ComfyUI's images are (B, H, W, C) in [0, 1], those of Cascade (B, C, H, W) in [-1, 1].
"""

from functools import lru_cache

from cascade import CascadePipeline
from cascade.devices import find_device

OWN = "0: as the model has it"
SHARED = {
    "seed": ("INT", {"default": 0, "max": 2**63 - 1, "control_after_generate": True}),
    "steps": ("INT", {"default": 0, "max": 1000, "tooltip": OWN}),
}


@lru_cache(maxsize=1)  # another model takes the memory of the one before it
def load(model):
    return CascadePipeline.from_pretrained(model).to(find_device(None))


def progress_bar():
    """A function of (done, total) that moves ComfyUI's bar, and ends cancelled work."""
    try:
        from comfy.utils import ProgressBar
    except ImportError:  # outside ComfyUI
        return None
    return ProgressBar(1).update_absolute


def restore(verb, model, image, seed, **settings):
    """Call `upscale` or `colourise` of a model; settings of 0 are left to the model."""
    settings = {name: value for name, value in settings.items() if value}
    pictures = image[..., :3].movedim(-1, 1).clamp(0, 1) * 2 - 1  # without transparency
    call = getattr(load(model), verb)
    results = call(pictures, seed=seed, progress=progress_bar(), **settings)
    return ((results.movedim(1, -1).float().cpu() + 1) / 2,)


class CascadeUpscale:
    CATEGORY, FUNCTION, RETURN_TYPES = "image/upscaling", "upscale", ("IMAGE",)
    DESCRIPTION = "Upscale images. The model is a bundled one, a folder or a Hub id."

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        scale = {"default": 0.0, "max": 16.0, "step": 0.5, "tooltip": OWN}
        own = {"model": ("STRING", {"default": "photo-x4-restore"}), "scale": ("FLOAT", scale)}
        return {"required": {"image": ("IMAGE",), **own, **SHARED}}

    def upscale(self, image, model, scale, seed, steps):
        return restore("upscale", model, image, seed, scale=scale, steps=steps)


class CascadeColourise:
    CATEGORY, FUNCTION, RETURN_TYPES = "image", "colourise", ("IMAGE",)
    DESCRIPTION = "Colourise greyscale images. The model is a bundled one, a folder or a Hub id."

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        own = {"model": ("STRING", {"default": "photo-colour"})}
        return {"required": {"image": ("IMAGE",), **own, **SHARED}}

    def colourise(self, image, model, seed, steps):
        return restore("colourise", model, image, seed, steps=steps)


NODES = {"Upscale (Cascade)": CascadeUpscale, "Colourise (Cascade)": CascadeColourise}
NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODES.values()}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: title for title, node in NODES.items()}
