"""`python -m runctx.trackers.shipper SPOOL`: the shipper in the foreground."""

import sys

from .process import main

if __name__ == "__main__":
    main(sys.argv[1])
