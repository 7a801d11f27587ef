"""Which combinations of values shall be run, and what are they called?"""
