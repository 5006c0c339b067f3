"""The cue as a term of the loss, against gating at inference."""
