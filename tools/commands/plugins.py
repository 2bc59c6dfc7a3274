"""`plugins`: what is installed, what is broken and why."""

from __future__ import annotations

from ...transports import plugins as registry
from ...transports.errors import ExitStatus
from .session import Session, command


@command("plugins")
def plugins(session: Session) -> int | None:
    """What is installed: transports, flashers, enumerators, emulators, step handlers. Names what is broken, and why.

    \b
    proxyflash plugins
    """
    found = registry.survey()
    session.output.document(
        {
            "plugins": [
                {"group": item.group, "name": item.name, "target": item.target, "package": item.package,
                 "fault": item.fault or None}
                for item in found
            ]
        }
    )  # fmt: skip
    names = max((len(item.name) for item in found), default=0)
    packages = max((len(item.package) for item in found), default=0)
    targets = max((len(item.target) for item in found), default=0)
    group = ""
    for item in found:
        if item.group != group:
            group = item.group
            session.output.line(group)
        state = f"BROKEN  {item.fault}" if item.fault else "ok"
        session.output.line(f"  {item.name:<{names}}  {item.package:<{packages}}  {item.target:<{targets}}  {state}")
    return ExitStatus.FAILED if any(item.fault for item in found) else None
