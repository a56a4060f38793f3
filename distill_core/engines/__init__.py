"""Ways to run a generator faster than as the torch module it is."""
