"""What each family's codes mean: the tables in the code, the one in the documents, and what a flasher makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from enum import IntEnum
from pathlib import Path

import pytest
from proxyflash.flashers.avr import avr109_codec, stk500v1_codec, stk500v2_codec
from proxyflash.flashers.canopen import codec as canopen
from proxyflash.flashers.dfu import codec as dfu
from proxyflash.flashers.errors import (
    USUAL_SILENCES,
    Meaning,
    OperationFailed,
    PartError,
    PartRefused,
    ProtocolError,
    Step,
)
from proxyflash.flashers.katapult import codec as katapult
from proxyflash.flashers.mboot import codec as mboot
from proxyflash.flashers.smp import codec as smp
from proxyflash.flashers.smp.client import accepted
from proxyflash.flashers.stm32 import codec as stm32
from proxyflash.flashers.xcp import codec as xcp
from proxyflash.flashers.xymodem import codec as xymodem
from proxyflash.tests.flashers.dfu_lab import NEW, SLOT, Lab
from proxyflash.transports import plugins

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocols.md"
COLUMNS = (Meaning.BUSY, Meaning.LOST, Meaning.FAILED, Meaning.REFUSED)
OTHERS = "all others"
SPELT = {stm32.NACK: "NACK"}
TABLES: dict[str, tuple[Mapping[int, Meaning], type[IntEnum] | None, Meaning]] = {
    "`canopen`": (canopen.MEANINGS, canopen.Abort, Meaning.REFUSED),
    "`katapult-can`, `katapult-uart`": (katapult.MEANINGS, katapult.Result, Meaning.LOST),
    "`mboot-can`, `mboot-uart`": (mboot.MEANINGS, mboot.Status, Meaning.FAILED),
    "`stm32-can`, `stm32-fdcan`, `stm32-uart`": (stm32.MEANINGS, None, Meaning.LOST),
    "`xcp-can`, `xcp-uart`": (xcp.MEANINGS, xcp.Err, Meaning.REFUSED),
    "`xmodem`, `ymodem`": (xymodem.MEANINGS, xymodem.Control, Meaning.LOST),
    "`stk500v1`": (stk500v1_codec.MEANINGS, stk500v1_codec.Answer, Meaning.LOST),
    "`stk500v2`": (stk500v2_codec.MEANINGS, stk500v2_codec.Status, Meaning.REFUSED),
    "`avr109`": (avr109_codec.MEANINGS, None, Meaning.LOST),
    "`dfu`": (dfu.MEANINGS, dfu.DfuStatus, Meaning.FAILED),
    "`smp`, rc": (smp.MEANINGS, smp.Rc, Meaning.REFUSED),
    "`smp`, err.rc of images": (smp.IMAGE_MEANINGS, smp.ImageRc, Meaning.REFUSED),
}


@pytest.mark.parametrize("family", TABLES)
def test_the_documents_have_the_same(family: str) -> None:
    meanings, names, others = TABLES[family]
    table = DOCUMENT.read_text().partition("| answers of |")[2].partition("\n\n")[0]
    (line,) = [text for text in table.splitlines() if text.startswith(f"| {family} |")]
    for meaning, cell in zip(COLUMNS, line.split("|")[2:], strict=False):
        said = {name for name in cell.strip().split(", ") if name != "-"}
        known = {
            names(code).name if names else SPELT.get(code, chr(code))
            for code, own in meanings.items()
            if own is meaning
        }
        assert said == known | ({OTHERS} if meaning is others else set())


def test_the_documents_have_the_same_silences() -> None:
    """A row for each protocol, a column for each step."""
    lines = DOCUMENT.read_text().splitlines()
    start = next(number for number, text in enumerate(lines) if text.startswith("| silence of |"))
    rows = [[cell.strip() for cell in text.strip("|").split("|")] for text in lines[start : lines.index("", start)]]
    assert rows[0][1:] == [step.value for step in Step]
    said = {row[0].strip("`"): row[1:] for row in rows[2:]}
    known = {name: plugins.load(plugins.FLASHERS, name) for name in said}
    assert said == {name: [kind.silences[step].name.lower() for step in Step] for name, kind in known.items()}
    others = {plugins.load(plugins.FLASHERS, name) for name in plugins.names(plugins.FLASHERS)} - set(known.values())
    assert all(kind.silences is USUAL_SILENCES for kind in others)


def test_a_message_that_the_loader_got_garbled_is_sent_again() -> None:
    """AVR068, "Status constants": STATUS_CKSUM_ERROR, 0xC1."""
    with pytest.raises(ProtocolError, match="did not get it whole"):
        stk500v2_codec.result(b"\x13\xc1", stk500v2_codec.Command.PROGRAM_FLASH_ISP, 0, "it")


def test_a_refusal_for_good_is_not_tried_again() -> None:
    with pytest.raises(PartRefused) as caught:
        stk500v2_codec.result(b"\x13\xc9", stk500v2_codec.Command.PROGRAM_FLASH_ISP, 0, "it")
    assert caught.value.passes is False


@pytest.mark.parametrize(("status", "refused"), [(0x08, True), (0x0B, True), (0x06, False), (0x0F, False)])
def test_a_dfu_device_that_refuses_is_not_asked_again(status: int, refused: bool) -> None:
    """DFU 1.1, 6.1.2: errADDRESS is 0x08, errVENDOR 0x0B, errPROG 0x06, errSTALLEDPKT 0x0F. Another attempt would go well."""
    lab = Lab()
    device = lab.add(SLOT, fail_at=1, fail_with=status)
    with pytest.raises(PartError) if refused else nullcontext():
        lab.flash(SLOT)
    assert (device.application_version == NEW) == (not refused)
    lab.close()


@pytest.mark.parametrize(
    ("body", "meaning", "kind"),
    [
        ({"rc": 10}, Meaning.BUSY, PartRefused),
        ({"rc": 3}, Meaning.FAILED, PartRefused),
        ({"rc": 8}, Meaning.REFUSED, PartRefused),
        ({"err": {"group": 1, "rc": 15}}, Meaning.BUSY, PartRefused),
        ({"err": {"group": 1, "rc": 12}}, Meaning.FAILED, OperationFailed),
        ({"err": {"group": 1, "rc": 9}}, Meaning.REFUSED, PartRefused),
        ({"err": {"group": 64, "rc": 1}}, Meaning.REFUSED, PartRefused),
    ],
)
def test_refusals_of_smp(body: dict[str, object], meaning: Meaning, kind: type[PartRefused | OperationFailed]) -> None:
    """MGMT_ERR_EBUSY is 10, EINVAL 3, ENOTSUP 8; NO_FREE_MEMORY 15, FLASH_WRITE_FAILED 12, NO_FREE_SLOT 9 (Zephyr)."""
    reply = smp.Packet(smp.Op.WRITE_RSP, 1, 0, 1, body)
    assert reply.refusal is not None
    assert reply.refusal.meaning is meaning
    with pytest.raises(kind) as caught:
        accepted(reply, "it")
    assert caught.value.passes is (False if meaning is Meaning.REFUSED else None)
