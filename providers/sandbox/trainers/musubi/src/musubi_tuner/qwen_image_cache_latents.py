"""Stands for musubi-tuner's `qwen_image_cache_latents.py` in a rehearsal."""

import sys
from pathlib import Path

from providers.sandbox.trainers.musubi_program import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).name, sys.argv[1:]))
