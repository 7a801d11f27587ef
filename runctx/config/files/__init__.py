"""Configuration files: one over a class, one over another, one per group."""
