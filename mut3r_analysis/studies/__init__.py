"""Studies: one question each, answered with labelled data and a computed sentence."""
