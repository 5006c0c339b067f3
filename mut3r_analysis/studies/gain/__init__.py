"""How well a score must tell what moves for gating by it to help."""
