"""The page in a browser: Debian's Chromium without a screen, on a phone's width, a tablet's and a desk's, light and dark."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from proxyflash.report_page import page
from proxyflash.report_page.story import Exchange, Message

from .. import peers
from .conftest import story

pytestmark = pytest.mark.real_time("a browser")
WIDTHS = (320, 360, 390, 768, 1280)
PHONE = 640
"""The widest screen of a phone, as page.css has it."""
TEXTS = ("harmless", "W" * 64)
SCHEMES = {"light": 1, "dark": 0}
"""Blink's numbers of the colour schemes."""
LOOK = """<!DOCTYPE html><html style="color-scheme: light dark"><meta charset="utf-8"><body><pre id="found"></pre><script>
const PAGE = %s, WIDTHS = %s, found = [];
const parts = text => text.match(/[0-9.]+/g).map(Number);
function behind(element, view) {
  for (; element; element = element.parentElement) {
    const [red, green, blue, alpha = 1] = parts(view.getComputedStyle(element).backgroundColor);
    if (alpha > 0) return [red, green, blue];
  }
  return [255, 255, 255];
}
function luminance(colour) {
  const [red, green, blue] = colour.map(part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
function look(width, frame) {
  const view = frame.contentWindow, inner = frame.contentDocument;
  inner.querySelectorAll("details").forEach(one => one.open = true);
  let lowest = 21;
  const walker = inner.createTreeWalker(inner.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement, style = view.getComputedStyle(parent);
    if (!walker.currentNode.data.trim() || parent.localName === "title") continue;
    const colour = parent.namespaceURI.endsWith("svg") ? style.fill : style.color;
    lowest = Math.min(lowest, contrast(parts(colour), behind(parent, view)));
  }
  const reached = [...inner.querySelectorAll("a, summary, [tabindex]")].map(one => {
    one.focus();
    return inner.activeElement === one;
  });
  found.push({
    width,
    inside: inner.documentElement.scrollWidth,
    background: view.getComputedStyle(inner.body).backgroundColor,
    lowest, reached,
    scrolled: [...inner.querySelectorAll("*")].filter(one => one.scrollWidth > one.clientWidth &&
      view.getComputedStyle(one).overflowX === "auto").every(one => one.tabIndex >= 0),
    cut: [...inner.querySelectorAll("details .scroll:has(.exchange)")].some(one => one.scrollWidth > one.clientWidth),
    names: [...inner.querySelectorAll(".exchange td.soft:not([colspan])")].map(one => {
      const range = inner.createRange();
      range.selectNodeContents(one);
      return range.getClientRects().length;
    }),
    drawn: [...inner.querySelectorAll("svg[role=img]")].every(one => one.getBoundingClientRect().width > width / 3),
    bar: inner.querySelector("rect.span.write").getBoundingClientRect().width /
      inner.querySelector("rect.track").getBoundingClientRect().width,
    text: inner.body.innerText,
  });
  frame.remove();
  if (found.length === WIDTHS.length) document.getElementById("found").textContent = JSON.stringify(found);
}
for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 3000px`;
  frame.srcdoc = PAGE;
  frame.onload = () => look(width, frame);
  document.body.append(frame);
}
</script></body></html>"""
"""Shows the page in a frame of each width, and writes down what a reader would see there."""


def browse(path: Path, *options: str) -> tuple[str, str]:
    """What the browser makes of a file, and what it logs."""
    done = subprocess.run(
        [peers.installed("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         f"--user-data-dir={path.parent / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=20000",
         *options, path.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr


@pytest.mark.parametrize("text", TEXTS, ids=["short", "long"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_reader_sees_the_page(tmp_path: Path, scheme: str, text: str) -> None:
    long = Exchange(text, (Message(0.1, "powertrain", True, "AB" * 100),))
    made = page.render(replace(story(text), exchanges=(long,)))
    looking = LOOK % (json.dumps(made).replace("</", "<\\/"), json.dumps(WIDTHS))
    (tmp_path / "look.html").write_text(looking, encoding="utf-8")
    shown, log = browse(
        tmp_path / "look.html", "--dump-dom", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    )
    assert "CONSOLE" not in log
    document = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert document is not None
    seen: list[dict[str, Any]] = json.loads(unescape(document[1]))
    assert sorted(item["width"] for item in seen) == list(WIDTHS)
    for item in seen:
        # Nothing is wider than the screen, each picture has its place, and the bar the length that the story has.
        assert item["inside"] <= item["width"], item["width"]
        assert item["drawn"], item["width"]
        assert not item["cut"] or item["width"] < 360, item["width"]
        # The name of a bus is on one line where there is room for it.
        assert set(item["names"]) == {1} or item["width"] <= PHONE or text != TEXTS[0]
        assert item["bar"] == pytest.approx(0.25, abs=0.02)
        assert item["lowest"] >= 4.5
        assert item["reached"]
        assert all(item["reached"])
        assert item["scrolled"], "what scrolls sideways can't be reached by the keyboard"
        assert item["background"] == {"light": "rgb(247, 247, 245)", "dark": "rgb(19, 22, 24)"}[scheme]
        for shown in ("48,416 bytes in 6.61 s", "7.3 kB/s", "70 %", "0x00000040", "2026-11-25 04:08:34 UTC · 10.0 s"):
            assert shown in item["text"], shown


def test_the_page_alone_has_no_error_and_prints(tmp_path: Path) -> None:
    page.write(story("harmless"), tmp_path / "page.html")
    _, log = browse(tmp_path / "page.html", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert "CONSOLE" not in log
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")
