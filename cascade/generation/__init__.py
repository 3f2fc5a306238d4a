"""Writes a series of generated pictures, and the contact sheet and the index that go with it."""
