"""Faults that training gives to low-resolution images, one kind a file, drawn from their seeds."""
