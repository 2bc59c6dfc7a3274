"""The pages of the documentation site, before Sphinx makes them: each is reached, and each link leads to one of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from proxyflash.docs import build

from .test_docs import anchors


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "source"
    build.gather(folder)
    return folder


def test_each_page_is_in_the_contents_once(source: Path) -> None:
    trees = re.findall(r"^```{toctree}\n(.*?)^```", (source / "index.md").read_text(), re.MULTILINE | re.DOTALL)
    listed = [line for tree in trees for line in tree.split("\n") if line and not line.startswith(":")]
    assert sorted([*listed, "index.md"]) == sorted(page.name for page in source.glob("*.md"))


def test_each_link_and_each_picture_is_there(source: Path) -> None:
    for page in source.glob("*.md"):
        text = re.sub(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for where in re.findall(r"\]\(([^)\s]+)\)", text):
            target, _, anchor = where.partition("#")
            if re.match(r"[a-z]+:", where):
                continue
            assert (source / (target or page.name)).is_file(), f"{page.name}: {where}"
            assert not anchor or anchor in anchors((source / (target or page.name)).read_text()), (
                f"{page.name}: {where}"
            )
    assert "(pictures/" in (source / "start-bench.md").read_text()


def test_the_commands_and_the_fixtures_are_described(source: Path) -> None:
    commands = (source / "commands.md").read_text()
    assert "## `proxyflash manifest sign`\n\n    proxyflash manifest sign [OPTIONS]" in commands
    assert "| `-y, --yes` | Don't ask before erasing real hardware. |" in commands
    assert "## `firmware`\n\nReleases to test with" in (source / "fixtures.md").read_text()


def test_the_classes_of_the_python_page_are_there() -> None:
    for name in (name for names in build.PYTHON.values() for name in names):
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(__import__(f"proxyflash.{module}", fromlist=["x"]), attribute), type), name
