"""Model code that travels inside this package, so that no other installed package can clash with it."""
