"""How fast is runctx beside tools people know? `python -m tests.bench` measures, prints and keeps a table."""
