"""What do past runs say? One (`record`), what it was made from (`lineage`), ten thousand (`index`), and several beside
each other (`comparison`)."""
