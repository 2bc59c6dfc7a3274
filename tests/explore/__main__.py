"""Exploration from the command line: see docs/exploration.md.

python -m tests.explore 1..500          # these seeds
python -m tests.explore 4711            # one seed, with the log of what happened
python -m tests.explore --seconds 180   # as many new ones as fit, from a seed that the commit decides
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from reprlib import repr as shown

from .draw import case
from .run import Result, explore, told

MOST = 1 << 40
MOST_DIGITS = 100
"""More than a seed can have; Python reads no number of thousands."""
PROGRESS = 250
"""Seeds after which it is said how far it is."""


class BadSeeds(argparse.ArgumentTypeError):
    """What stands for seeds, or for a time, is none."""


def seeds(text: str) -> range:
    """ "5": that one; "5..9": these five."""
    first, dots, last = text.partition("..")
    numbers = (first, last if dots else first)
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise BadSeeds(f"{shown(text)} names no seeds: write a number (5), or the first and the last one (5..9)")
    if max(map(len, numbers)) > MOST_DIGITS:
        raise BadSeeds(f"{shown(text)} is too large for a seed: the largest is {MOST}")
    low, high = (int(number) for number in numbers)
    if high > MOST:
        raise BadSeeds(f"{high} is too large for a seed: the largest is {MOST}")
    if high < low:
        raise BadSeeds(f"{text!r} is empty: the last seed is smaller than the first. Write {high}..{low}")
    return range(low, high + 1)


def duration(text: str) -> float:
    """Seconds, more than none."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise BadSeeds(f"{shown(text)} is not a time: write a number of seconds above 0")
    return seconds


def of_commit() -> int:
    """A first seed that each commit has for itself."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return int(hashlib.sha256(head.encode()).hexdigest()[:9], 16)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.explore", description="Explores benches, updates and faults."
    )
    parser.add_argument("seeds", type=seeds, nargs="?", help="a seed, or the first and the last one: 1..500")
    parser.add_argument("--seconds", type=duration, help="as many seeds as fit into this time")
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument("--keep-going", action="store_true", help="run the others too when one has failed")
    asked = parser.parse_args(arguments)
    if asked.seeds is None and asked.seconds is None:
        parser.error("name seeds, such as 1..500, or --seconds")
    if asked.processes < 1:
        parser.error(f"--processes: {asked.processes} processes can't do anything")
    chosen = asked.seeds or range(of_commit(), MOST)
    if len(chosen) == 1:
        return _shown(explore(chosen[0]))
    return _many(chosen, asked.seconds, asked.processes, keep_going=asked.keep_going)


def _many(chosen: range, seconds: float | None, processes: int, *, keep_going: bool) -> int:
    began = time.monotonic()

    def in_time() -> Iterator[int]:
        for seed in chosen:
            if seconds is not None and time.monotonic() - began >= seconds:
                return
            yield seed

    count, commands, simulated, failed = 0, 0, 0.0, 0
    for result in _results(in_time(), processes):
        count += 1
        commands += result.commands
        simulated += result.simulated
        if result.wrong:
            failed += 1
            _shown(result)
            if not keep_going:
                break
        elif count % PROGRESS == 0:
            print(f"{count:,} seeds, the last one {result.seed}", file=sys.stderr, flush=True)
    real = time.monotonic() - began
    print(
        f"{count:,} seeds from {chosen[0]} on: {failed} failed; {commands:,} commands,"
        f" {simulated:,.0f} simulated seconds in {real:,.0f} real ones"
    )
    return 1 if failed else 0


def _results(chosen: Iterator[int], processes: int) -> Iterator[Result]:
    if processes == 1:
        yield from map(explore, chosen)
        return
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, maxtasksperchild=500) as pool:
        waiting = []
        for seed in chosen:
            waiting.append(pool.apply_async(explore, (seed,)))
            if len(waiting) >= 4 * processes:
                yield waiting.pop(0).get()
        for one in waiting:
            yield one.get()


def _shown(result: Result) -> int:
    print("\n".join(told(case(result.seed))))
    print("\n".join(result.log))
    if result.wrong:
        print(f"seed {result.seed} FAILED: {result.wrong}")
        print(f"again: {sys.executable} -m tests.explore {result.seed}", flush=True)
        return 1
    print(f"seed {result.seed}: all holds; {result.commands} commands, {result.simulated:.1f} simulated seconds")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main(sys.argv[1:]))
