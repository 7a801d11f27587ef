"""Tasks, results and exceptions outside their process: as bytes, as digests, and as short texts."""
