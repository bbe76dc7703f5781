"""Systems that predict a spot by looking up similar ones in a reference."""
