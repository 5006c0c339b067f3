"""The same cue and gates through other memories."""
