"""Frozen text encoders, and the embeddings that they computed."""
