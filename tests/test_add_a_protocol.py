"""The toy of docs/add-a-protocol.md: its files, as they stand there, install, pass the contract, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.tests.environments import python_with, run

PAGE = (Path(__file__).parent.parent / "docs" / "add-a-protocol.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^\*\*`([\w./]+)`\*\*\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
MOST_LINES = 150
"""Of a small protocol's flasher, beside its codec."""

by_hand = pytest.mark.real_time("an installation, child programs")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "acme-toy"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def python(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_with(toy, tmp_path_factory)


def test_its_flasher_is_small() -> None:
    assert len(FILES["acme_toy/flasher.py"].splitlines()) <= MOST_LINES


@by_hand
def test_it_passes_the_contract(python: Path, toy: Path) -> None:
    said = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_toy.py", folder=toy)
    assert re.search(r"^[5-9][0-9] passed in", said, re.MULTILINE), said


@by_hand
def test_the_commands_do_what_the_page_says(python: Path, toy: Path) -> None:
    (toy / "firmware.bin").write_bytes(application.make("1.0.0", "toy", "Acme", 2500, start=0))

    def said(*words: str) -> str:
        return run(python, "-m", "proxyflash.tools", "--state", "state", *words, folder=toy)

    assert re.search(r"^  toy .*bootloader", said("scan"), re.MULTILINE)
    assert "toy-1" in said("info", "toy")
    assert "-> 1.0.0  OK  verified (CRC-32 by the part), booted" in said(
        "flash", "toy", "firmware.bin", "--address", "0"
    )
    assert re.search(r"^  toy .*1\.0\.0", said("scan"), re.MULTILINE)
