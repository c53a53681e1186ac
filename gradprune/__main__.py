"""``python -m gradprune`` is the command ``gradprune``."""

import sys

from gradprune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
