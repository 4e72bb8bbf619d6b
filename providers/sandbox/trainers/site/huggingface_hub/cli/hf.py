"""`hf download` on a rehearsal's machine: puts a small file where the weights would be."""

import os
import sys
from pathlib import Path


def main(words: list[str]) -> int:
    match words:
        case ["download", repository, file, "--local-dir", folder]:
            if os.environ.get("ONMODEL_TRAINER_FAULT") == "gated":
                said = f"401 Client Error. Access to model {repository} is restricted."
                sys.stderr.write(f"huggingface_hub.errors.GatedRepoError: {said}\n")
                return 1
            path = Path(folder) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"stands for weights")
            sys.stdout.write(f"{path}\n")
            return 0
        case _:
            sys.stderr.write(f"Usage: hf [OPTIONS] COMMAND [ARGS]...\nError: No such command {words}\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
