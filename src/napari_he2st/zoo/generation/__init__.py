"""Systems that draw expression from a generative model."""
