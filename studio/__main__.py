"""`studio` and `python -m studio`."""

import sys

from studio.cli.run import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
