"""Stands for ai-toolkit's `run.py` in a rehearsal."""

import sys

from providers.sandbox.trainers.ai_toolkit_program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
