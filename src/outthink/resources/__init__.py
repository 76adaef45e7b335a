"""What a strategy may ask for by name."""
