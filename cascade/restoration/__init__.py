"""Upscales, colours and edits pictures of any size with stages trained on small ones."""
