"""What Prometheus and Alertmanager are given: rules and configuration. Only what writes them may be code.

`slo.yml` is written by `slo_rules`; the other files are written by hand.
"""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent

#: The rules that Prometheus loads.
RULES: Final = (FOLDER / "slo.yml", FOLDER / "alerts.yml")
