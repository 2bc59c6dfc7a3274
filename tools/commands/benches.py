"""`bench check`, `bench init`, `bench add`, `bench schema`: the bench file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ...enumerators.errors import BenchError, BenchMissing
from ...transports import named_files
from ...transports.plain import counted
from ...transports.quoting import shell_line
from .session import PROFILE, Session, command, group, target_names


class BenchExists(BenchError):
    """`bench init` would overwrite a file, or can't write the file."""

    code = "E-BENCH-EXISTS"
    default_remedy = "Name another file, or add --force."


class NothingAttached(BenchError):
    """`bench init` found no CAN interface, serial adapter or USB on this host."""

    code = "E-BENCH-NOTHING"
    default_remedy = "Plug an adapter in. Or try an emulated bench: proxyflash demo"


@group("bench")
def bench() -> None:
    """Checks a bench file, writes one, or adds to it."""


@command("check")
def check(session: Session) -> int | None:
    """Checks the bench file: every key, every name, the parts of emulated buses, the keys. Opens no adapter.

    What is likely not meant is said on stderr: a bit rate that is left out, modem lines that reset a part.

    \b
    proxyflash --bench desk.toml bench check
    """
    from ...updates.manifests.policy import policy_of
    from ...updates.manifests.signing import PrivateKey, Trust

    surprises = session.bench.check()
    file = session.bench.file
    policy = policy_of(file)
    Trust.of(policy.roots, policy.revoked)
    if policy.report_key:
        PrivateKey.read(Path(policy.report_key))
    told = {"surprises": surprises} if surprises else {}
    session.output.document(
        {"file": str(file.path), "buses": list(file.spec.bus), "components": list(file.names), **told}
    )
    for text in surprises:
        session.output.note(text)
    counts = f"{counted(len(file.spec.bus), 'bus', 'buses')}, {counted(len(file.names), 'component')}"
    session.output.line(f"{file.path}  OK  {counts}")
    return None


@command("init")
@click.argument("file", type=click.Path(path_type=Path), default=Path("bench.toml"))
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init(session: Session, file: Path, force: bool) -> int | None:
    """Writes a bench file from what is attached: CAN interfaces, serial adapters, USB.

    Components are not guessed: `proxyflash scan` prints what it finds as lines to paste.

    \b
    proxyflash bench init desk.toml
    """
    from ...enumerators.component import distinct
    from ...enumerators.probers import probers

    found = distinct([bus for _, prober in probers() for bus in prober.attached()], (), ())
    if not found:
        raise NothingAttached("no CAN interface, no USB serial adapter and no USB device is attached to this host")
    try:
        with open(file, "w" if force else "x", encoding="utf-8", opener=named_files.opener(0o666)) as stream:
            stream.write("\n\n".join(f"# {bus.title}\n{bus.lines}" for bus in found) + "\n")
    except FileExistsError as error:
        raise BenchExists(f"{file} is there already", remedy="Name another file, or add --force.") from error
    except OSError as error:
        raise BenchExists(f"{file}: {error.strerror}", remedy="Name another file.") from error
    session.output.document({"file": str(file), "buses": [bus.name for bus in found]})
    scan = shell_line(["proxyflash", "--bench", str(file), "scan"])
    session.output.line(f"{file}  {counted(len(found), 'bus', 'buses')}; now: {scan}")
    return None


@command("schema")
def schema(session: Session) -> int | None:
    """Print the bench file's JSON Schema, with which editors complete and explain its keys.

    \b
    proxyflash bench schema > bench.schema.json
    """
    from ..bench_schema import bench_schema

    session.output.data(json.dumps(bench_schema(), indent=1))
    return None


@command("add")
@click.argument("name")
@click.argument("target", shell_complete=target_names)
@PROFILE
def add(session: Session, name: str, target: str) -> int | None:
    """Writes a target into the bench file, as a component with a name.

    What the file has stays as it is; the component is added at its end, on a bus that the file has for that place, or on
    a new bus. Without a bench file, bench.toml is made here.

    \b
    proxyflash bench add imu stm32-uart:/dev/ttyUSB0
    proxyflash bench add front-radar 'uds:socketcan:can0?request=0x7E0' --profile acme.toml
    """
    from ...enumerators.bench import find_file
    from ...enumerators.bench_component import default_rate
    from ...enumerators.benchfile.adding import add as add_to
    from ...enumerators.target import Target

    wanted = Target(target, session.profile).file()
    try:
        path = find_file(session.bench_path)
    except BenchMissing:
        path = Path("bench.toml")
    made = add_to(path, name, wanted)
    bus = made.entries[name].spec.bus
    session.output.document({"file": str(path), "component": name, "bus": bus})
    look = shell_line(["proxyflash", *(["--bench", str(path)] if session.bench_path else []), "info", name])
    session.output.line(f"{path}  component {name} on bus {bus}; now: {look}")
    if said := default_rate(made, made.entries[name]):
        session.output.note(said)
    return None


for _command in (check, init, add, schema):
    bench.add_command(_command)
