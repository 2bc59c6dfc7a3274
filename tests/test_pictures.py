"""The pictures of the documents are what the commands print."""

from __future__ import annotations

import pytest
from proxyflash.docs import draw_pictures


@pytest.mark.real_time("begins a simulated clock for each picture")
def test_each_picture_is_what_its_command_prints_now() -> None:
    kept = {path.stem: path.read_text(encoding="utf-8") for path in draw_pictures.FOLDER.glob("*.svg")}
    made = dict(draw_pictures.pictures())
    assert kept
    assert kept == made, "run: make pictures"
    assert not any("@font-face" in svg for svg in made.values()), "a picture fetches nothing"
