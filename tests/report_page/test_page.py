"""The page: what it shows is text, its colours can be read, and its pictures have what the story has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from importlib import resources
from itertools import product

import pytest
from proxyflash.report_page import page
from proxyflash.report_page.story import Memory, Mood, State, Story, Stretch, Verdict

from .conftest import story

HOSTILE = "<script>alert(1)</script>\"'>&amp;\u202e{{ 7*7 }}"
CSS = resources.files("proxyflash.report_page").joinpath("page.css").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_what_comes_from_elsewhere_stays_text() -> None:
    made = page.render(story(HOSTILE))
    found = Elements(made)
    assert "\u202e" not in made
    assert "script" not in {tag for tag, _ in found.elements}
    # No element and no attribute more than with a harmless text.
    harmless = Elements(page.render(story("harmless")))
    assert [(tag, [*names]) for tag, names in found.elements] == [(tag, [*names]) for tag, names in harmless.elements]
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert sum(shown in text for text in found.texts) == sum("harmless" in text for text in harmless.texts) > 20


def test_a_link_leads_nowhere_but_beside_the_page() -> None:
    found = Elements(
        page.render(replace(story("a"), verdicts=(Verdict("a", "a", Mood.GOOD, (), "javascript:alert(1)"),)))
    )
    assert [attributes["href"] for tag, attributes in found.elements if tag == "a"] == ["./javascript:alert(1)"]


def test_the_page_needs_nothing_else() -> None:
    made = page.render(story("harmless"))
    assert not re.search(r"https?:|src=|url\(|@import|<link|<script", made)
    assert "default-src 'none'; style-src 'unsafe-inline'" in made


def test_its_numbers_are_the_story_s() -> None:
    text = " ".join(Elements(page.render(story("harmless"))).texts)
    for shown in ("48,416 bytes in 6.61 s", "7.3 kB/s", "70 % of what the wire carries", "0x00000040", "192", "2.50 s"):
        assert shown in text, shown
    assert "2026-11-25 04:08:34 UTC · 10.0 s" in text


def test_a_byte_that_failed_is_seen_on_a_map_of_mebibytes() -> None:
    """Its part of the map is far less than a pixel: it has an outline, and nothing is drawn over that."""
    stretches = (
        Stretch(0, 0x4000, State.WRITTEN),
        Stretch(0x4000, 0x4001, State.FAILED),
        Stretch(0x4001, 0x80000, State.PLANNED),
    )
    memory = Memory("imu", "flash", 0, 0x80000, stretches)
    text = page.render(replace(story("harmless"), memories=(memory,)))
    [drawn] = re.findall(r'aria-label="Map of .*?</svg>', text, re.DOTALL)
    assert re.findall(r'<rect class="([a-z-]+)"', drawn) == ["written", "not-done", "failed"]
    assert "svg[role=img] > .failed { stroke-width: 4; }" in text


def test_each_field_of_a_story_is_on_the_page() -> None:
    template = resources.files("proxyflash.report_page").joinpath("page.html").read_text(encoding="utf-8")
    assert [field.name for field in fields(Story) if f"story.{field.name}" not in template] == []


def test_an_empty_story_is_a_page() -> None:
    assert "Nothing" in page.render(Story("", "Nothing", Mood.GOOD, 1.0, 1.0))


def test_a_keyboard_reaches_all_that_scrolls_and_folds() -> None:
    found = Elements(page.render(story("harmless"))).elements
    scrolling = [attributes for _, attributes in found if "scroll" in (attributes.get("class") or "").split()]
    assert scrolling
    assert all(
        item.get("tabindex") == "0" and item.get("role") == "region" and item.get("aria-label") for item in scrolling
    )
    assert len([1 for tag, _ in found if tag == "details"]) == len([1 for tag, _ in found if tag == "summary"]) > 2
    # Each picture that isn't hidden has a name.
    drawn = [attributes for tag, attributes in found if tag == "svg" and attributes.get("role") == "img"]
    assert drawn
    assert all(attributes.get("aria-label") for attributes in drawn)


def colours() -> Iterator[dict[str, str]]:
    """Those of a light screen, a dark screen and paper."""
    for block in re.findall(r":root \{([^}]*)\}", CSS):
        yield dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_wcag_has_it() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_colours_can_be_told_from_what_is_behind() -> None:
    """WCAG 2.2: 4.5 for text (1.4.3), 3 for what a picture is read by (1.4.11)."""
    schemes = list(colours())
    assert len(schemes) == 3
    for scheme in schemes:
        for text, behind in product(("ink", "soft", "good", "bad", "open", "link"), ("page", "card")):
            assert contrast(scheme[text], scheme[behind]) >= 4.5, (text, behind, scheme)
        for drawn in ("idle", "erase", "write", "verify", "present", "skipped", "bad"):
            assert contrast(scheme[drawn], scheme["card"]) >= 3, (drawn, scheme)
            assert contrast(scheme[drawn], scheme["track"]) >= 3, (drawn, scheme)
