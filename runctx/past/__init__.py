"""What do past runs say? One (`record`), what it was made from (`lineage`), and ten thousand (`index`)."""
