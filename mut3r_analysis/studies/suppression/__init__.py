"""How deep into the decoder suppression should reach."""
