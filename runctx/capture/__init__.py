"""Record facts about a run: its source, program, environment and output. Nothing in here knows `Run`."""
