"""Functions that the npe2 manifest names."""
