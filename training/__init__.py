"""Commands that make what the packages ship. Not part of any distribution."""
