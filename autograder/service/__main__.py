"""`python -m autograder.service`: see server.py."""

import sys

from autograder.service.server import main

if __name__ == "__main__":
    sys.exit(main())
