"""The modules of the product, which tests read as text."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "transports",
    "flashers",
    "enumerators",
    "updates",
    "tools",
    "emulators",
    "hil_tests",
    "testing",
    "report_page",
)
MODULES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts
)
