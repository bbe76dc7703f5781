"""The order of work: predict, train, compare, segment, store, session. No Qt."""
