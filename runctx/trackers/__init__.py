"""What becomes of the numbers a run produces? The journal on disk is the truth about them."""
