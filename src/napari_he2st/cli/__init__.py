"""The ``he2st`` command: one file per command, each a thin layer over one engine function."""
