"""What keeps a guest from being had, or from ending as it should.

All have one exit status of their own, so that a caller can tell the guest's failures from those of the command in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...transports.errors import ExitStatus, ProxyflashError
from ...transports.plain import plain


class VmError(ProxyflashError):
    """`console`: the last lines that the guest's kernel, or QEMU, printed."""

    code = "E-VM"
    exit_status = ExitStatus.GUEST

    def __init__(self, cause: str, *, remedy: str | None = None, console: Sequence[str] = ()) -> None:
        super().__init__(cause, remedy=remedy)
        self.console = tuple(console)

    def __str__(self) -> str:
        said = "".join(f"\n  | {plain(line)}" for line in self.console)
        return super().__str__() + (f" The console's last lines:{said}" if said else "")


class VmHost(VmError):
    """This host is not Linux on x86-64."""

    code = "E-VM-HOST"
    default_remedy = "Use a Linux host with an x86-64 processor, or load the drivers into this host's own kernel."


class VmQemu(VmError):
    """QEMU is not installed."""

    code = "E-VM-QEMU"
    default_remedy = "sudo apt-get install qemu-system-x86"


class VmBusybox(VmError):
    """busybox is not installed, or is the kind that needs libraries."""

    code = "E-VM-BUSYBOX"
    default_remedy = "sudo apt-get install busybox-static"


class VmApt(VmError):
    """apt-get or dpkg-deb is not installed, so the kernel can't be downloaded."""

    code = "E-VM-APT"
    default_remedy = "The guest's kernel is a Debian package: run this on Debian, or in a container of it (debian:12)."


class VmKernel(VmError):
    """apt's package lists have no kernel, or it can't be downloaded."""

    code = "E-VM-KERNEL"
    default_remedy = "sudo apt-get update, then again."


class VmModule(VmError):
    """The guest's kernel has no module of that name."""

    code = "E-VM-MODULE"
    default_remedy = "Leave it out of --modules, or correct its name."


class VmCache(VmError):
    """The kernel or the initramfs can't be written: a full disk, or a folder of another user."""

    code = "E-VM-CACHE"
    default_remedy = "Name a folder with 600 MB free: --cache FOLDER."


class VmFolder(VmError):
    """The artefacts' folder can't be written."""

    code = "E-VM-ARTEFACTS"
    default_remedy = "Name a folder that you may write to: --artefacts FOLDER."


class VmBoot(VmError):
    """The guest can't be set up. The message has the step and the console's last lines."""

    code = "E-VM-BOOT"
    default_remedy = "Download the kernel again: proxyflash vm prepare."


class VmTime(VmError):
    """The time limit passed, in the boot or in the command."""

    code = "E-VM-TIME"
    default_remedy = "Give it longer: --time-limit SECONDS. The guest is 10 to 20 times slower than its host."


class VmSilent(VmError):
    """The guest gave no sign of life for 120 s."""

    code = "E-VM-SILENT"
    default_remedy = "Is this host overloaded, or short of memory? Run it again."


class VmPanic(VmError):
    """The guest's kernel panicked. The message has its reason and the console's last lines."""

    code = "E-VM-PANIC"
    default_remedy = "The console's log in the folder of --artefacts has all that the kernel said."


class VmDied(VmError):
    """QEMU ended before the command did: it was killed, could not start, or the guest was switched off."""

    code = "E-VM-DIED"
    default_remedy = "Is there memory enough for --memory, and may QEMU run here?"
