"""Pure functions on arrays and AnnData: metrics, domains, normalisation, graphs (no torch)."""
