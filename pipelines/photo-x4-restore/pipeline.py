"""Where diffusers finds the class of this folder: trust_remote_code=True."""

from cascade.diffusers_pipeline import DiffusersPipeline

__all__ = ["DiffusersPipeline"]
