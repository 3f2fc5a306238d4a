"""Where diffusers finds the class of this folder: trust_remote_code=True."""

from cascade import CascadePipeline

__all__ = ["CascadePipeline"]
