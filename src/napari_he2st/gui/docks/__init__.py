"""One file per dock; a dock observes the session, calls one engine function and holds no data."""
