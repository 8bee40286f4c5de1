"""`python -m segladder` is `segladder`."""

import sys

from segladder.cli import main

if __name__ == "__main__":
    sys.exit(main())
