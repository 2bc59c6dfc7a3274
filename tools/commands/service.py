"""`service`: a unit of systemd that resumes an interrupted update when this host starts, and the udev rules that it needs."""

from __future__ import annotations

import grp
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from ...enumerators.bench import Bench
from ...transports.errors import ExitStatus, ProxyflashError
from ...transports.plain import plain
from ...transports.quoting import shell_line, systemd_word
from ...updates.manifests import creating
from .adu import OutputFile
from .session import Session, command, group

MARK = "# Written by: proxyflash service install\n"
UNIT = Path("etc/systemd/system/proxyflash-resume.service")
WANTED = Path("etc/systemd/system/multi-user.target.wants/proxyflash-resume.service")
RULES = Path("etc/udev/rules.d/70-proxyflash.rules")
ROOT = Path("/")
ENDED = sorted(set(ExitStatus) - {ExitStatus.DONE, ExitStatus.BUSY, ExitStatus.RESUMABLE, ExitStatus.INTERRUPTED,
                                  ExitStatus.GUEST})  # fmt: skip
"""Exit statuses after which nothing is left to resume, or a person is needed."""
ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")

FORM = """\
[Unit]
Description=Resume an interrupted update of the parts on this host's buses
{order}
RequiresMountsFor={mounts}
{condition}StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
# 10: the update is unfinished, as long as a bus or a part isn't there; 6: another command uses the bench.
Restart=on-failure
RestartPreventExitStatus={ended}
RestartSec=30
# SIGTERM stops at the next safe point.
KillMode=mixed
TimeoutStopSec=90
{account}
[Install]
WantedBy=multi-user.target
"""
HARDENED = """\
User={user}
{groups}UMask=0077
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={state}
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_CAN AF_NETLINK
"""
FOR_ROOT = """\
# Steps for the host itself (scripts, packages, partitions) may need all of root's rights; --user NAME takes them away.
ProtectHostname=yes
RestrictRealtime=yes
LockPersonality=yes
"""


class AccountUnknown(ProxyflashError):
    """`service install`: this host has no user of that name."""

    code = "E-ACCOUNT"
    exit_status = ExitStatus.ABSENT
    default_remedy = "Make the user first: sudo useradd --system NAME"


@group("service")
def service() -> None:
    """Has systemd resume an interrupted update when this host starts.

    \b
    sudo proxyflash --bench /etc/proxyflash/bench.toml --state /var/lib/proxyflash service install
    sudo proxyflash service uninstall
    """


@command("install")
@click.option("--user", metavar="NAME", default="root", help="Who the service runs as, without rights beyond that.")
@click.option("--wait", type=click.IntRange(0, 86_400), default=600, help="Seconds to wait for parts in each run.")
@click.option("--print", "only_print", is_flag=True, help="Only show what would be written.")
def install(session: Session, user: str, wait: int, only_print: bool) -> int | None:
    """Writes the unit for this bench file and state folder, enables it, and writes udev rules for the user.

    Where systemd is not the running init, as in most containers, the files are written all the same, and that is said.

    \b
    sudo proxyflash --bench /etc/proxyflash/bench.toml --state /var/lib/proxyflash service install
    proxyflash service install --print
    """
    texts = {UNIT: unit(session.bench, user, wait)}
    if rules := "".join(f"{line}\n" for line in _rules(session.bench, user)):
        texts[RULES] = MARK + rules
    files = {ROOT / path: text for path, text in texts.items()}
    running = _systemd_runs()
    told = {"files": {str(path): text for path, text in files.items()}, "written": not only_print, "systemd": running}
    session.output.document(told)
    if only_print:
        for path, text in files.items():
            session.output.lines([f"# {path}", *text.rstrip("\n").split("\n")])
        return None
    for path in (ROOT / UNIT, ROOT / RULES):
        _check_ours(path)
    try:
        if RULES not in texts:
            # Those of an earlier user, or of the bench file as it was.
            (ROOT / RULES).unlink(missing_ok=True)
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            creating.write(path, text.encode())
            path.chmod(0o644)
        (ROOT / WANTED).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / WANTED).unlink(missing_ok=True)
        (ROOT / WANTED).symlink_to(ROOT / UNIT)
    except OSError as error:
        raise OutputFile(f"{error.filename}: {error.strerror}") from error
    _reload(session)
    session.output.lines([str(path) for path in files])
    if running:
        session.output.line("It resumes an interrupted update from the next start of this host on.")
    else:
        session.output.line("The files are written, and nothing reads them now: systemd is not the running init here.")
        session.output.note(
            "a host that is started with systemd uses them from then on; under another init, have this run at each start: "
            + shell_line(_resuming(session.bench, wait))
        )
    return None


@command("uninstall")
def uninstall(session: Session) -> int | None:
    """Takes away what `install` wrote. A run that is under way goes on to its end.

    \b
    sudo proxyflash service uninstall
    """
    removed = [path for path in (ROOT / UNIT, ROOT / RULES) if path.exists()]
    for path in removed:
        _check_ours(path)
    try:
        for path in ([ROOT / WANTED] if (ROOT / WANTED).is_symlink() else []) + removed:
            path.unlink()
    except OSError as error:
        raise OutputFile(f"{error.filename}: {error.strerror}") from error
    if removed:
        _reload(session)
    session.output.document({"removed": [str(path) for path in removed]})
    session.output.lines([f"removed {path}" for path in removed] or ["the service is not installed"])
    return None


service.add_command(install)
service.add_command(uninstall)


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    group: str


def _account(name: str) -> _Account:
    try:
        found = pwd.getpwnam(name)
        group = grp.getgrgid(found.pw_gid).gr_name
    except (KeyError, ValueError) as error:
        make = shell_line(["sudo", "useradd", "--system", name])
        raise AccountUnknown(
            f"there is no user {name!r} on this host", remedy=f"Make the user first: {make}"
        ) from error
    if not ACCOUNT.fullmatch(found.pw_name) or not ACCOUNT.fullmatch(group):
        raise AccountUnknown(f"systemd takes no user of the name {name!r}", remedy="Name another user.")
    return _Account(found.pw_name, group)


def _resuming(bench: Bench, wait: int) -> list[str | Path]:
    """The command that resumes, from any folder. Isolated: neither that folder nor the user's says what Python imports."""
    named = ("--bench", bench.file.path.absolute(), "--state", bench.state.absolute())
    return [sys.executable, "-I", "-m", "proxyflash.tools", *named, "resume", "--wait", str(wait)]


def unit(bench: Bench, user: str, wait: int) -> str:
    """The unit of systemd. Raises AccountUnknown."""
    account = _account(user)
    path, state = bench.file.path.absolute(), bench.state.absolute()
    program, *arguments = _resuming(bench, wait)
    words = [systemd_word(program), *(systemd_word(word, argument=True) for word in arguments)]
    groups = " ".join(_serial_groups(bench))
    hardened = HARDENED.format(
        user=account.name,
        groups=f"SupplementaryGroups={groups}\n" if groups else "",
        # That it isn't there is no fault.
        state=systemd_word(f"-{state}"),
    )
    return MARK + FORM.format(
        order="\n".join(_order(bench)),
        mounts=" ".join(map(systemd_word, (path.parent, state))),
        condition=_condition(bench.folder.absolute()),
        command=" ".join(words),
        ended=" ".join(str(int(status)) for status in ENDED),
        account=FOR_ROOT if account.name == "root" else hardened,
    )


def _order(bench: Bench) -> Iterator[str]:
    """Behind what brings the devices of the buses. Which of them are there, `--wait` sees to."""
    kinds = {spec.kind for spec in bench.file.spec.bus.values()}
    yield "After=local-fs.target systemd-udevd.service systemd-udev-trigger.service systemd-modules-load.service"
    if "can" in kinds:
        yield "After=network.target"
    if "udp" in kinds:
        yield "Wants=network-online.target"
        yield "After=network-online.target"


def _condition(folder: Path) -> str:
    """Nothing is begun, and nothing fails, as long as the bench has no folder: then there is no update to resume.

    systemd takes such a path to the end of its line, without quotes. A path that no line can hold gets no condition.
    """
    text = str(folder)
    return "" if plain(text) != text else "ConditionPathIsDirectory={}\n".format(text.replace("%", "%%"))


def _serial_groups(bench: Bench) -> list[str]:
    """Those that the serial ports belong to; Debian's, where no port is there yet."""
    found: set[str] = set()
    for name, spec in bench.file.spec.bus.items():
        if spec.kind != "serial" or spec.emulated:
            continue
        group = "dialout"
        with suppress(OSError, KeyError, ValueError):
            group = Path(str(bench.file.settings(name).get("url", ""))).group()
        with suppress(KeyError):
            if group != "root" and ACCOUNT.fullmatch(group):
                found.add(grp.getgrnam(group).gr_name)
    return sorted(found)


def _rules(bench: Bench, user: str) -> Iterator[str]:
    """What gives the USB devices of the bench's components to the user's group. Root needs none."""
    account = _account(user)
    pairs: dict[tuple[int, int], None] = {}
    for entry in bench.file.entries.values():
        address = entry.address.model_dump()
        for key, vendor in address.items():
            product = address.get(key.removesuffix("vendor_id") + "product_id") if key.endswith("vendor_id") else None
            if isinstance(vendor, int) and isinstance(product, int):
                pairs[vendor, product] = None
    if account.name != "root":
        for vendor, product in pairs:
            yield (
                f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor:04x}", ATTR{{idProduct}}=="{product:04x}", '
                f'MODE="0660", GROUP="{account.group}"'
            )


def _check_ours(path: Path) -> None:
    """Raises OutputFile for a file that somebody else wrote."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            ours = stream.readline(200) == MARK
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputFile(f"{path}: {error.strerror}") from error
    if not ours:
        raise OutputFile(f"{path} was not written by proxyflash service install", remedy="Move it away first.")


def _systemd_runs() -> bool:
    """Whether systemd is this host's init, as sd_booted(3) looks for it."""
    return (ROOT / "run/systemd/system").is_dir()


def _reload(session: Session) -> None:
    """Has systemd and udev read their files again, where they run."""
    if not _systemd_runs():
        return
    for words in (["systemctl", "daemon-reload"], ["udevadm", "control", "--reload"]):
        program = shutil.which(words[0])
        if program is None or subprocess.run([program, *words[1:]], stdin=subprocess.DEVNULL, check=False).returncode:
            session.output.note(f"run this by hand: sudo {' '.join(words)}")
