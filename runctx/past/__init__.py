"""Past runs: one (`record`), what it was made from (`lineage`), ten thousand (`index`, `many`), and several beside each
other (`comparison`)."""
