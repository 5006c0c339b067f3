"""What a write rule is worth beside the constant of its own mean rate."""
