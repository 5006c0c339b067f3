"""The tables of the paper, rebuilt."""
