"""Run the configs of the benchmarks that the seed names, and put their tables into ``docs/examples``.

    python docs/capture_systems.py --only deepbench

Each is run as it stands, on this machine; its table becomes ``docs/examples/NAME.md``, with the command above it. Do it
on a quiet machine, for the figures are what people will read; half an hour for all of them on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLES: Final = ROOT / "docs" / "examples"

#: The page's first words, by the config's name.
SYSTEMS: Final = {
    "seed": "TensorFlow r0.11's alexnet_benchmark",
    "convnet": "convnet-benchmarks",
    "tf-cnn": "tf_cnn_benchmarks' AlexNet",
    "deepbench": "DeepBench, a small choice of its training set",
    "all-reduce": "DeepBench's all-reduce",
}


def page(title: str, config: str, table: str) -> str:
    """Return the page of one system; the table's own title is no heading of it."""
    first, _, rest = table.partition("\n")
    return (
        f"# {title}\n\n```console\n$ muster run configs/{config}.yaml\n```\n\n"
        f"*{first.removeprefix('### ')}*\n{rest.rstrip()}\n\n"
        "What is measured and how it differs from what was published: "
        "[the benchmarks that the seed names](../explanation/seed-systems.md).\n"
    )


def captured(config: str) -> str:
    """Run a config in an empty folder and return its table as Markdown."""
    muster = Path(sys.executable).with_name("muster")
    with tempfile.TemporaryDirectory(prefix="muster-capture-") as folder:
        place = Path(folder)
        (place / "configs").mkdir()
        shutil.copy(ROOT / "configs" / f"{config}.yaml", place / "configs")
        subprocess.run([muster, "run", f"configs/{config}.yaml"], cwd=place, check=True, stdout=subprocess.DEVNULL)
        shown = subprocess.run(
            [muster, "show", "--format", "md"], cwd=place, check=True, capture_output=True, text=True
        )
    return shown.stdout


def main() -> None:
    """Capture what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SYSTEMS), action="append")
    asked = parser.parse_args()
    for config in asked.only or SYSTEMS:
        text = page(SYSTEMS[config], config, captured(config))
        (EXAMPLES / f"{config}.md").write_text(text, encoding="utf-8")
        print(f"docs/examples/{config}.md is written")


if __name__ == "__main__":
    main()
