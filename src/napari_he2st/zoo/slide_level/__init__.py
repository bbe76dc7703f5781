"""Published systems that predict expression, mutations or subtypes of a whole slide."""
