"""What answers SMP requests: the groups of commands, and how an error is reported (Zephyr, "SMP Protocol Specification").

Written from Zephyr's documents and the behaviour of its servers. A server keeps what it keeps in RAM: a reset forgets
uploads. `SmpRefused` is an error of SMP itself, reported as `rc` in both versions. `Failed` is an error of a group,
reported as `err` in version 2 and as the `rc` that stands for it in version 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import cbor2

from .frames import HEADER, Op, Packet


class Rc(IntEnum):
    """mcumgr_err_t."""

    EOK = 0
    EUNKNOWN = 1
    ENOMEM = 2
    EINVAL = 3
    ETIMEOUT = 4
    ENOENT = 5
    EBADSTATE = 6
    EMSGSIZE = 7
    ENOTSUP = 8
    ECORRUPT = 9
    EBUSY = 10
    EACCESSDENIED = 11
    UNSUPPORTED_TOO_OLD = 12
    UNSUPPORTED_TOO_NEW = 13


class Group(IntEnum):
    """mcumgr_group_t, those that are here."""

    OS = 0
    IMAGE = 1


class Os(IntEnum):
    """Commands of the OS group."""

    ECHO = 0
    CONSOLE_ECHO = 1
    RESET = 5
    PARAMS = 6
    INFO = 7
    BOOTLOADER_INFO = 8


class Img(IntEnum):
    """Commands of the image group."""

    STATE = 0
    UPLOAD = 1
    ERASE = 5
    SLOT_INFO = 6


TOLD = ((Group.OS, Os.RESET), (Group.IMAGE, Img.UPLOAD), (Group.IMAGE, Img.ERASE))
"""Commands that tell `rc` of a success too (CONFIG_MCUMGR_SMP_LEGACY_RC_BEHAVIOUR)."""


class SmpRefused(Exception):
    def __init__(self, rc: Rc) -> None:
        super().__init__(rc.name)
        self.rc = rc


class Failed(Exception):
    """`code`: the group's own. `rc`: what version 1 reports instead."""

    def __init__(self, group: Group, code: int, rc: Rc) -> None:
        super().__init__(f"{group.name} {code}")
        self.group = group
        self.code = code
        self.rc = rc


Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Server:
    """`newest`: the newest version that it speaks, 0 or 1. `told`: the successes of `TOLD` report `rc` 0, as old builds do.

    `handlers`: by group, command and whether something is written. `room`: bytes of the largest packet.
    """

    def __init__(
        self, handlers: Mapping[tuple[int, int, bool], Handler], *, room: int, newest: int, told: bool
    ) -> None:
        self._handlers = handlers
        self._room = room
        self._newest = newest
        self._told = told

    def answer(self, data: bytes) -> bytes | None:
        """The packet that answers this one; None where no answer is due."""
        packet = Packet.parse(data)
        if packet is None or packet.op not in (Op.READ, Op.WRITE):
            return None
        version = min(packet.version, self._newest)
        reply: Mapping[str, Any]
        try:
            if self._newest and packet.version > self._newest:
                raise SmpRefused(Rc.UNSUPPORTED_TOO_NEW)
            reply = self._handler(packet)(_arguments(packet.body))
            if self._told and (packet.group, packet.command) in TOLD:
                reply = {"rc": 0, **reply}
        except SmpRefused as refused:
            reply = {"rc": int(refused.rc)}
        except Failed as failed:
            reply = {"err": {"group": int(failed.group), "rc": failed.code}} if version else {"rc": int(failed.rc)}
        body = encoded(reply)
        if HEADER.size + len(body) > self._room:
            body = encoded({"rc": int(Rc.EMSGSIZE)})
        return packet.answer(version, body)

    def _handler(self, packet: Packet) -> Handler:
        handler = self._handlers.get((packet.group, packet.command, packet.op == Op.WRITE))
        if handler is None:
            raise SmpRefused(Rc.ENOTSUP)
        return handler


def encoded(reply: Mapping[str, Any]) -> bytes:
    """With maps and lists of indefinite length, as Zephyr's encoder makes them."""
    return cbor2.dumps(reply, indefinite_containers=True)


def _arguments(body: bytes) -> Mapping[str, Any]:
    if not body:
        return {}
    try:
        found = cbor2.loads(body)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, ArithmeticError) as error:
        raise SmpRefused(Rc.EINVAL) from error
    if not isinstance(found, dict):
        raise SmpRefused(Rc.EINVAL)
    return found


def argument(arguments: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    """The argument of this name; `default` where it is absent. Raises Refused where it is of another kind."""
    if key not in arguments:
        return default
    value = arguments[key]
    if kind is int:
        is_right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32
    else:
        is_right = isinstance(value, kind)
    if not is_right:
        raise SmpRefused(Rc.EINVAL)
    return value
