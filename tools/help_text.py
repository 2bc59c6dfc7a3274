"""The text of `proxyflash --help`, which is printed before anything else is imported."""

COLUMNS = 80
"""It fits into."""

HELP = """\
Usage: proxyflash [OPTIONS] COMMAND [ARGS]...

  Updates the firmware of sensors wired to this host over CAN, serial lines and
  USB: finds them, plans, flashes through each one's bootloader, verifies on the
  part, and reports.

  Try it with nothing attached:
    proxyflash demo

  One sensor, one file:
    proxyflash flash stm32-uart:/dev/ttyUSB0 fw.hex

  Many sensors, one manifest:
    proxyflash plan update.importmanifest.json
    proxyflash apply update.importmanifest.json

Options:
  --bench FILE      The bench file; else PROXYFLASH_BENCH, else bench.toml here
                    or in a folder above.
  --state FOLDER    Where locks and emulated flash are kept.
  --json            One JSON document on stdout.
  --jsonl           Events as JSON lines on stdout.
  -q, --quiet       No progress.
  -v, --verbose     More; -vv shows tracebacks and each message on the buses.
  --log-file FILE   Everything, with times, into a file.
  --version         The version.
  -h, --help        This text; `proxyflash COMMAND --help` says more.

Components:
  scan      Finds the components on every bus.
  info      Everything known of one component.
  flash     Plans, erases, writes, verifies, boots.
  verify    Compares a component's memory with an image.
  read      Reads a component's memory into a file.
  erase     Erases a component's memory.
  reset     Restarts a component.

Files and updates:
  image     What a firmware file holds; converts it.
  plan      What an update would do.
  apply     Carries out an update.
  resume    Goes on with an update that was cut or stopped.
  rollback  Undoes an update.
  history   The updates so far.
  report    What an update did; as a page too, and as a proof of it.
  manifest  Writes, explains and signs the manifests of updates.
  service   Has systemd resume an update when this host starts.
  adu       Ties this host to Azure Device Update's agent.

Benches:
  bench     Checks a bench file, writes one, or adds to it.
  demo      Updates three emulated sensors, from nothing.
  emulate   Serves the bench's emulated parts to other programs.
  monitor   Shows what passes on CAN buses, decoded.
  record    Runs a command and keeps what passes on the buses.
  replay    Runs it again on the recording, with nothing attached.
  vm        Runs a command in a guest whose kernel has CAN and USB.
  doctor    Looks for what keeps this host from working.
  plugins   What is installed, what is broken and why.
  help      A page of the documentation: help bench-file; without a name, all.
"""


def narrowed(columns: int) -> str:
    """The text for a terminal with fewer columns than COLUMNS: a line that is too long goes on under its last column."""
    import textwrap

    lines = []
    for line in HELP.split("\n"):
        _, gap, about = line.strip().partition("  ")
        at = line.index(about.lstrip()) if gap else len(line) - len(line.lstrip())
        indent = " " * min(at, columns // 2)
        lines += textwrap.wrap(line, columns, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return "\n".join(lines)
