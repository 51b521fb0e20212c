"""Run by every Python whose PYTHONPATH holds this folder: adds the frameworks beside it to muster's."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

import workers.frameworks  # noqa: E402  only now can it be found

# Where configs look for the names of frameworks, and where they are imported from.
workers.__path__.append(str(HERE))
workers.frameworks.__path__.append(str(HERE / "frameworks"))
