"""BigVGAN's faster ways to run, one module each."""
