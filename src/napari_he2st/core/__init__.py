"""Words that all rooms share: types, geometry, schema, keys, registry, errors (numpy only)."""
