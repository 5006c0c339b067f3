"""Why a trajectory error can rise under gating: by path, by part, by sequence."""
