"""The numbers that runs log: written as they come, read as columns, followed by trackers."""
