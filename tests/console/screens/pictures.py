"""Pictures for the README out of those that `--screenshots` writes: cut, few colours, small.

    python -m pytest tests/console/screens --screenshots shots
    python -m tests.console.screens.pictures shots

Needs Pillow, which nothing else here does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ingester

__all__ = ["PICTURES"]

FOLDER = Path(ingester.__file__).parent / "console" / "pictures"
# By name: the picture that is taken, and how much of its height is shown.
PICTURES = {
    "welcome": ("welcome-light", 720),
    "logs": ("logs-light", 720),
    "explorer": ("explorer-series-light", 800),
    "dashboard": ("dashboard-usage-light", 800),
    "tokens": ("events-light", 640),
    "viewer": ("viewer-light", 640),
    "monitor": ("monitor-backtest-light", 800),
    "incident": ("incident-light", 800),
    "pipeline": ("pipeline-light", 800),
}
COLOURS = 64


def main(shots: Path) -> None:
    from PIL import Image

    for name, (shot, height) in PICTURES.items():
        with Image.open(shots / f"{shot}.png") as image:
            shown = image.convert("RGB").crop((0, 0, image.width, min(height, image.height)))
            shown.quantize(COLOURS).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
