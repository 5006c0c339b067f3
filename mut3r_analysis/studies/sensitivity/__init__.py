"""How sharp gates should be, and what that depends on."""
