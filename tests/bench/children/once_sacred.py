"""A script with one empty run of sacred, stored in files."""

from sacred import Experiment
from sacred.observers import FileStorageObserver
from settings20 import SETTINGS

experiment = Experiment("once")
experiment.add_config(SETTINGS)
experiment.observers.append(FileStorageObserver("results"))


@experiment.main
def main():
    pass


experiment.run()
