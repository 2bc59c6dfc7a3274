"""`make fuzz SECONDS=600`: atheris over every target, the time split among them; each in a process of its own.

An input that makes a reader fail, that takes more than SLOWEST seconds or more than MOST_MEGABYTES is kept in the corpus,
and the command that replays it is printed. The exit status is then 1.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "fuzz"
SLOWEST = 10
"""Seconds for one input."""
MOST_MEGABYTES = 2048
LONGEST = 65536
"""Bytes of an input."""
RUNS = re.compile(r"^#(\d+)|Done (\d+) runs", re.MULTILINE)
INSTRUMENTED = [
    "proxyflash.emulators.can.server",
    "proxyflash.enumerators",
    "proxyflash.flashers",
    "proxyflash.tests.fuzz",
    "proxyflash.transports",
    "proxyflash.updates",
    "tomllib",
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m proxyflash.tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="Without: all.")
    parser.add_argument("--seconds", type=int, default=600, help="Of all targets together.")
    parser.add_argument("--jobs", type=int, default=2, help="How many run at once.")
    parser.add_argument("--replay", metavar="FILE", type=Path, help="Run one target on this input alone.")
    given = parser.parse_args()
    if given.replay is not None:
        from proxyflash.tests.fuzz import inputs as corpus

        if len(given.targets) != 1 or given.targets[0] not in corpus.all_targets():
            parser.error("--replay takes one TARGET")
        corpus.all_targets()[given.targets[0]](given.replay.read_bytes())
        return 0
    import atheris

    # Once for all: this takes longer than a target's share of a short run.
    with atheris.instrument_imports(include=INSTRUMENTED):
        from proxyflash.tests.fuzz import inputs as corpus
    known = corpus.all_targets()
    if wrong := set(given.targets) - set(known):
        parser.error(f"no target is called {', '.join(sorted(wrong))}; there are: {', '.join(known)}")
    names = given.targets or list(known)
    share = max(1, given.seconds // len(names))
    began = time.monotonic()
    waiting, running, total, failed = list(names), dict[int, str](), 0, 0
    while waiting or running:
        while waiting and len(running) < given.jobs:
            name = waiting.pop(0)
            running[_started(atheris, corpus, name, share)] = name
        process, status = os.waitpid(-1, 0)
        runs, good = _ended(corpus, running.pop(process), status)
        total += runs
        failed += not good
    spent = time.monotonic() - began
    _say(f"{len(names)} targets of {share} s each, {total:,} runs, {spent:.0f} s, {failed} with a fault")
    return 1 if failed else 0


def _started(atheris: Any, corpus: Any, name: str, seconds: int) -> int:
    """A process that fuzzes one target; its number."""
    folder = WORK / name
    crashes, inputs, first = folder / "crashes", folder / "inputs", folder / "seeds"
    for path in (crashes, inputs, first):
        path.mkdir(parents=True, exist_ok=True)
    for path in crashes.iterdir():
        path.unlink()
    for number, data in enumerate(corpus.all_seeds().get(name, [])):
        (first / str(number)).write_bytes(data)
    for path in corpus.found(name):
        (first / path.name).write_bytes(path.read_bytes())
    process = os.fork()
    if process:
        return process
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)
    options = {
        "max_total_time": seconds,
        "timeout": SLOWEST,
        "rss_limit_mb": MOST_MEGABYTES,
        "max_len": LONGEST,
        "artifact_prefix": f"{crashes}{os.sep}",
    }
    words = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *words, str(inputs), str(first)], corpus.all_targets()[name])
    atheris.Fuzz()
    os._exit(0)


def _ended(corpus: Any, name: str, status: int) -> tuple[int, bool]:
    """How many inputs a target got, and whether it took them all."""
    said = (WORK / name / "said").read_text(errors="replace")
    runs = max((int(one or two) for one, two in RUNS.findall(said)), default=0)
    _say(f"{name}: {runs:,} runs" + (", a fault" if status else ""))
    for path in sorted((WORK / name / "crashes").iterdir()):
        kept = corpus.keep(name, path.read_bytes())
        _say(f"  replay: {sys.executable} -m proxyflash.tests.fuzz {name} --replay {kept.relative_to(ROOT)}")
    if status:
        _say("\n".join(f"  {line}" for line in said.splitlines()[-30:]))
    return runs, status == 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
