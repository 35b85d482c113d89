"""``python -m lmdeploy``: the verbs of the program ``lanner``."""

import sys

from lanner.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
