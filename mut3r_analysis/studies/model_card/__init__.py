"""What a model card holds, as labelled tables, and what it comes to in words."""
