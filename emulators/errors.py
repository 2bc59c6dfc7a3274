"""Failures of serving emulated parts through the kernel's drivers, and of what they keep on the disk."""

from __future__ import annotations

from pathlib import Path

from ..transports.errors import AdapterAbsent, AdapterBusy, AdapterForbidden, StateFolder


class VhciAbsent(AdapterAbsent):
    """`emulate --vhci`, `--acm`: the kernel has no virtual USB host controller, or it is not loaded."""

    code = "E-VHCI-ABSENT"
    default_remedy = (
        "Load it: sudo modprobe vhci_hcd. A kernel without it: run it in a guest: proxyflash vm run -- COMMAND"
    )


class VhciForbidden(AdapterForbidden):
    """`emulate --vhci`, `--acm`: only root may plug devices into the virtual host controller."""

    code = "E-VHCI-FORBIDDEN"
    default_remedy = "Run it as root: sudo proxyflash emulate --vhci BUS"


class VhciFull(AdapterBusy):
    """`emulate --vhci`, `--acm`: the virtual host controller has no free port."""

    code = "E-VHCI-FULL"
    default_remedy = "End another emulation; or detach what `sudo usbip port` lists."


class AcmDriverAbsent(AdapterAbsent):
    """`emulate --acm`: the kernel's `cdc_acm` driver does not take the emulated serial adapter."""

    code = "E-ACM-DRIVER"
    default_remedy = (
        "Load it: sudo modprobe cdc_acm. A kernel without it: run it in a guest: proxyflash vm run -- COMMAND"
    )


def broken_state(path: Path) -> StateFolder:
    """A part's own file holds what no emulated part writes."""
    return StateFolder(
        f"{path} is not what an emulated part writes", remedy=f"Remove {path}: the part begins as from the factory."
    )
