"""Systems that predict expression below the size of a spot: one Python file and one card each."""
