"""The command line as `python -m runctx`."""

from .cli import main

if __name__ == "__main__":
    main()
