"""Systems that regress expression from tiles: one Python file and one card each."""
