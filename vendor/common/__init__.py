"""What the vendored generators share: weight norm, configuration and checkpoint reading, receptive fields."""
