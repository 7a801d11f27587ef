"""Show values in a terminal and in a notebook. Needs nothing of the rest but `model`; whoever has data asks it."""
