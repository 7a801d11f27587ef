"""Empty runs of sacred, one after the other, stored in files."""

import time

from sacred import Experiment
from sacred.observers import FileStorageObserver
from serve import serve
from settings20 import SETTINGS

experiment = Experiment("warm")
experiment.add_config(SETTINGS)
experiment.observers.append(FileStorageObserver("results"))


@experiment.main
def main():
    pass


def run():
    start = time.perf_counter()
    experiment.run()
    return time.perf_counter() - start


serve({"run": run})
