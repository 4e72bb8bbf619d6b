"""`accelerate launch` on a rehearsal's machine: reads its own options and runs the script in this process."""

import runpy
import sys

TAKES = (
    "--num_processes",
    "--num_machines",
    "--num_cpu_threads_per_process",
    "--mixed_precision",
    "--dynamo_backend",
)
"""Those of the real one that our plans use; each takes a value."""


def main() -> None:
    words = sys.argv[1:]
    while words and words[0].startswith("--"):
        name = words.pop(0)
        if name not in TAKES or not words:
            sys.exit(f"launch: error: unrecognized arguments: {name}")
        words.pop(0)
    if not words:
        sys.exit("launch: error: the following arguments are required: training_script")
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
