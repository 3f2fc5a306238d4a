"""The web page of `cascade ui`: one module per tab, without logic of its own for pictures.

A tab collects what the user chose, and calls what the command of the same name calls. Jobs run in
threads, one at a time on the device; every visitor has a folder that goes when the visit ends.
"""
