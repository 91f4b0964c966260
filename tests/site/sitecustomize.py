"""Python imports this at its start, if this folder is in PYTHONPATH: the processes of a measured test are measured too."""

import os
import sys
from pathlib import Path

if "MEASURED" in os.environ:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import measured

    sys.path.pop(0)
    measured.begin(Path(os.environ["MEASURED"]))
