"""python -m streamkws: the command line."""

import sys

from streamkws.cli import main

if __name__ == "__main__":
    sys.exit(main())
