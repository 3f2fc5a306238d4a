"""Frozen networks that look at images: EfficientNet-Lite, and encoders of images as vectors."""
