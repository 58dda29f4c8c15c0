"""Where is a real Label Studio for its test? `make label-studio` installs one, about 1 GB, in a place of its own.

Beside the product's environment, as it wants other versions of much; in the cache folder, as `make clean` need not take
it away. The test starts it, and keeps its data folder as after the first start.
"""

from __future__ import annotations

import sys

from step import cache_dir, demand, note, take

ADVICE = "Without it its test is skipped."
VERSION = "1.23.2"  # whose formats server/label/label_studio.py knows


def main() -> None:
    """Make sure that it is there."""
    take("label-studio", get_label_studio)


def get_label_studio() -> str:
    """One line on what there is."""
    home = cache_dir() / "label-studio"
    program = home / "bin" / "label-studio"
    if not program.exists():
        note("label-studio", f"installing {VERSION}, about 1 GB")
        demand([sys.executable, "-m", "venv", home], ADVICE)
        demand([home / "bin" / "pip", "install", "-q", f"label-studio=={VERSION}"], ADVICE)
    return f"{program}"


if __name__ == "__main__":
    main()
