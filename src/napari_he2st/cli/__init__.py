"""The ``he2st`` command."""
