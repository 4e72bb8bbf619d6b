"""`pip install` on a rehearsal's machine: what it would install is there already."""

import sys

if __name__ == "__main__":
    sys.exit(0 if sys.argv[1:2] == ["install"] else 2)
