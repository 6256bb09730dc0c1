"""A worker process: `python -m optogram.atlas.worker`, which reads its work from a pipe."""

import sys

from optogram.atlas.engines import from_a_pipe

if __name__ == "__main__":
    sys.exit(from_a_pipe())
