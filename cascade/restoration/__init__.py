"""Upscales and colours pictures of any size with stages that were trained on small ones."""
