"""`--bench-report FOLDER`: a page for each bench test, and `index.html` with the verdicts of all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from ..enumerators.bench import Bench
from ..report_page import page
from ..report_page.collecting import Collector
from ..report_page.facts import host_tables
from ..report_page.story import Mood, Story, Verdict
from ..report_page.verdicts import summary_of, total_mood, worst_first
from ..transports import clock, private_files
from ..transports.errors import ProxyflashError

INDEX = "index.html"
NOTHING = "No bench test was run"
PAGE = "page"
"""The property of a test that names its page."""
LONGEST_NAME = 100
LONGEST_TEXT = 500
"""Characters of a failure that a verdict shows."""


def folder_of(config: pytest.Config) -> Path:
    """Where the pages go; a relative path starts where pytest was started, whatever a test changes to."""
    return Path(config.invocation_params.dir, config.getoption("bench_report"))


def check(folder: Path) -> None:
    """Makes the folder. Raises pytest.UsageError where no page can be written."""
    try:
        private_files.output_folder(folder)
        page.check_place(folder / INDEX)
        with TemporaryFile(dir=folder):
            pass
    except ProxyflashError as error:
        raise pytest.UsageError(f"--bench-report: {error}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise pytest.UsageError(f"--bench-report: can't write to the folder {folder}: {reason}") from None


class Pages:
    """Makes the pages of one process, one test after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._collector: Collector | None = None
        self._failures: list[str] = []
        self._skipped = ""

    def begin(self, name: str, bench: Bench) -> None:
        """A test begins: from now on what happens is collected."""
        self._collector = Collector(name)
        self._failures, self._skipped = [], ""
        self._collector.open(bench)
        bench.watcher = self._collector.see

    def phase(self, report: pytest.TestReport) -> None:
        """A phase of the test has ended."""
        if report.failed:
            self._failures.append(f"{report.when}: {_reason(report)}")
            if self._collector is not None:
                self._collector.moments.append((self._collector.now(), "", f"{report.when} failed"))
        elif report.skipped:
            self._skipped = _reason(report)

    def end(self) -> str:
        """Writes the page; its name in the folder, "": no test has begun. Raises PageFile."""
        collector, self._collector = self._collector, None
        if collector is None:
            return ""
        story = collector.story(verdict=_verdict(collector.title, self._failures, self._skipped))
        if clock.current().is_simulated:
            story = replace(story, notes=(*story.notes, "All times on this page are simulated."))
        name = f"{file_name(collector.title)}.html"
        page.write(story, self.folder / name)
        return name


def file_name(test: str) -> str:
    """Of the page of a test: different for each test, whatever its name."""
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", test).strip("-.")[:LONGEST_NAME]
    return f"{short}-{sha256(test.encode(errors='surrogatepass')).hexdigest()[:8]}"


def write_index(
    folder: Path,
    bench: str,
    reports: Iterable[tuple[pytest.TestReport, Mapping[str, object]]],
    faults: Sequence[str] = (),
) -> tuple[Path, int]:
    """Writes the page of all tests; its path, and how many bench tests it has. Raises PageFile.

    `reports`: those of all phases, with the properties of their tests. `faults`: what is wrong beside what tests found.
    """
    tests: dict[str, list[tuple[pytest.TestReport, Mapping[str, object]]]] = {}
    for report, properties in reports:
        # pytest-xdist itself reports a test whose worker is gone: it has no phase, and no properties.
        if "bench" in properties or (report.failed and report.when not in ("setup", "call", "teardown")):
            tests.setdefault(report.nodeid, []).append((report, properties))
    verdicts = []
    for name, phases in tests.items():
        failures = [f"{report.when}: {_reason(report)}" for report, _ in phases if report.failed]
        skipped = next((_reason(report) for report, _ in phases if report.skipped), "")
        known = {key: str(value) for _, properties in phases for key, value in properties.items()}
        link = known.pop(PAGE, "")
        seconds = sum(report.duration for report, _ in phases)
        facts = (("seconds", f"{seconds:.2f}"), *((key, value) for key, value in known.items() if key != "bench"))
        found = _verdict(name, failures, skipped)
        verdicts.append(Verdict(name, found.text, found.mood, facts, link))
    verdicts += [Verdict("the run", f"FAILED  {fault}"[:LONGEST_TEXT], Mood.BAD) for fault in faults]
    skips = sum(one.mood is Mood.PLAIN for one in verdicts)
    ran = [one for one in verdicts if one.mood is not Mood.PLAIN]
    now = clock.time()
    story = Story(
        title=f"Bench tests on {bench}",
        summary=summary_of(None, ran, "test") + (f", {skips} skipped" if skips else "") if verdicts else NOTHING,
        mood=total_mood(None, ran) if verdicts else Mood.PLAIN,
        began=now,
        ended=now,
        verdicts=tuple(worst_first(verdicts)),
        tables=tuple(host_tables()),
        notes=(f"proxyflash {version('proxyflash')}, bench {bench}.", *([] if tests else [f"{NOTHING}."])),
    )
    page.write(story, folder / INDEX)
    return folder / INDEX, len(tests)


def _verdict(name: str, failures: list[str], skipped: str) -> Verdict:
    if failures:
        return Verdict(name, f"FAILED  {'; '.join(failures)}", Mood.BAD)
    return Verdict(name, f"skipped: {skipped}", Mood.PLAIN) if skipped else Verdict(name, "OK", Mood.GOOD)


def _reason(report: pytest.TestReport) -> str:
    """The last line of why a test failed or was skipped."""
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else getattr(getattr(longrepr, "reprcrash", None), "message", "")
    text = str(text or longrepr or "").removeprefix("Skipped: ").strip()
    return text.splitlines()[0][:LONGEST_TEXT] if text else ""
