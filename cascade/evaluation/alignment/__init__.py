"""Alignment: how well images agree with the texts that they were made from."""
