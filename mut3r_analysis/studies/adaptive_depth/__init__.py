"""The suppressed depth chosen frame by frame."""
