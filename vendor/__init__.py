"""Model code kept at arm's length: plain torch modules that know nothing of distill."""
