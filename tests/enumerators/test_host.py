"""Components of the host itself: in the inventory, with a version by a file's key or a command, and no bus."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Presence, select
from proxyflash.enumerators.errors import BenchError, BenchKey, BenchName, ComponentUnknown
from proxyflash.enumerators.host import HostComponent, _value

HEAD = """
[bus.usb]
kind = "usb"
emulated = true

[[component]]
name = "rootfs"
group = "partitions"
manufacturer = "Contoso"
model = "gateway"
properties = {slot = "b"}
"""
CAMERA = """
[[component]]
name = "camera"
bus = "usb"
protocol = "dfu"
address = {vendor_id = 0x1209, product_id = 1}
"""


def bench(folder: Path, text: str) -> Bench:
    (folder / "bench.toml").write_text(HEAD + text)
    return Bench.open(folder / "bench.toml", state=folder / "state")


def looked(folder: Path, text: str) -> tuple[str, Presence]:
    found = bench(folder, text).find("rootfs").look()
    return found.version, found.presence


OS_RELEASE = '# of the image\nNAME="Gateway OS"\nVERSION_ID="4.2"\nOTHER_VERSION_ID=9\n'


@pytest.mark.parametrize(
    ("version", "content", "said"),
    [
        ('{file = "it", key = "VERSION_ID"}', OS_RELEASE, ("4.2", Presence.OK)),
        ('{file = "it", key = "VERSION"}', OS_RELEASE, ("", Presence.UNKNOWN)),
        ('{file = "it", key = "V"}', "V = '1.0'\r\nV=1.1", ("1.1", Presence.OK)),
        ('{file = "it"}', "  1.2.3\n", ("1.2.3", Presence.OK)),
        ('{file = "it"}', "two\nlines\n", ("", Presence.UNKNOWN)),
        ('{file = "it"}', "", ("", Presence.UNKNOWN)),
        ("""{file = "it", match = '"version": *"([0-9.]+)"'}""", '{"version": "7.1"}', ("7.1", Presence.OK)),
        ("""{file = "it", match = 'v([0-9.]+)'}""", "none", ("", Presence.UNKNOWN)),
        ('{command = "cat it"}', "5.0\n", ("5.0", Presence.OK)),
        ("""{command = "cat it", match = 'app ([0-9.]+)'}""", "app 5.1 (built today)\n", ("5.1", Presence.OK)),
        ('{command = "cat it; exit 1"}', "5.0\n", ("", Presence.ABSENT)),
        ('{file = "nowhere"}', "", ("", Presence.ABSENT)),
        ('{file = "."}', "", ("", Presence.ABSENT)),
        ('{command = "no-such-program"}', "", ("", Presence.ABSENT)),
    ],
)
@pytest.mark.real_time("commands")
def test_its_version(tmp_path: Path, version: str, content: str, said: tuple[str, Presence]) -> None:
    (tmp_path / "it").write_text(content, newline="")
    assert looked(tmp_path, f"version_from = {version}") == said


def test_without_a_question_nothing_is_known(tmp_path: Path) -> None:
    assert looked(tmp_path, "") == ("", Presence.UNKNOWN)


def test_in_one_inventory_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("4.2")
    with bench(tmp_path, 'version_from = {file = "version"}\n' + CAMERA) as opened:
        scan = opened.scan()
        assert [item.name for item in scan.components] == ["rootfs", "camera"]
        assert scan.components[0].record() == {
            "id": "rootfs",
            "name": "rootfs",
            "group": "partitions",
            "manufacturer": "Contoso",
            "model": "gateway",
            "version": "4.2",
            "properties": {"slot": "b", "status": "ok", "version": "4.2"},
        }
        assert [item.name for item in select(scan.components, [{"group": "partitions"}])] == ["rootfs"]
        assert isinstance(opened.find("rootfs"), HostComponent)
        assert [item.name for item in opened.components] == ["camera"]
        with pytest.raises(ComponentUnknown, match="is a part of this host, on no bus"):
            opened.component("rootfs")
        with pytest.raises(ComponentUnknown, match="it has: rootfs, camera"):
            opened.find("nobody")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ('protocol = "dfu"', BenchKey, r"bench.toml:12: component 'rootfs' has protocol and no bus"),
        ("address = {request = 1}", BenchKey, r"bench.toml:12: component 'rootfs' has address and no bus"),
        ("emulated = {}", BenchKey, r"bench.toml:12: component 'rootfs' has emulated and no bus"),
        (
            """version = {send = "V", match = "(.)"}""",
            BenchKey,
            r"bench.toml:12: component 'rootfs' has version and no bus",
        ),
        ('version_from = {file = "a", command = "b"}', BenchKey, "it takes either file or command"),
        ('version_from = {key = "b"}', BenchKey, "it takes either file or command"),
        ('version_from = {command = "a", key = "b"}', BenchKey, "key is for a file"),
        ('version_from = {file = "a", key = "b", match = "(c)"}', BenchKey, "it takes either key or match"),
        ('version_from = {file = "a", match = "c"}', BenchKey, "the pattern needs one group"),
        ('version_from = {file = "a", match = "("}', BenchKey, "no regular expression"),
        ('version_from = {file = "a", send = "c"}', BenchKey, "send"),
        ('[[component]]\nname = "rootfs"', BenchName, "two components are called 'rootfs'"),
        (CAMERA + 'version_from = {file = "a"}', BenchKey, "is on bus 'usb'; version_from is for parts of this host"),
        ('[[component]]\nname = "camera"\nbus = "usb"', BenchKey, "component.protocol is missing"),
    ],
)
def test_what_the_file_can_not_say(tmp_path: Path, text: str, kind: type[BenchError], said: str) -> None:
    with pytest.raises(kind, match=said):
        bench(tmp_path, text)


@given(st.text(max_size=60), st.text(min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_file(text: str, key: str) -> None:
    assert len(_value(text, key)) <= 200


def test_the_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write into an application's folder must not choose a file that this user alone can read."""
    (tmp_path / "secret").write_text("TOKEN-0123")
    (tmp_path / "own").symlink_to("secret")
    (tmp_path / "foreign").symlink_to("secret")
    try:
        os.chown(tmp_path / "foreign", 65534, 65534, follow_symlinks=False)
    except PermissionError:
        pytest.skip("another user's link: only root can make one")
    assert looked(tmp_path, 'version_from = {file = "own"}') == ("TOKEN-0123", Presence.OK)
    assert looked(tmp_path, 'version_from = {file = "foreign"}') == ("", Presence.ABSENT)


def test_a_fifo_in_the_place_of_the_file_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "version")
    assert looked(tmp_path, 'version_from = {file = "version"}') == ("", Presence.ABSENT)


def test_the_inventory_s_id(tmp_path: Path) -> None:
    """Azure's example enumerator has ids such as "contoso-virtual-vacuum-1-left-motor"."""
    text = (HEAD + CAMERA).replace('group = "partitions"', 'group = "partitions"\nid = "serial-no-0042/a"')
    (tmp_path / "bench.toml").write_text(text)
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        assert opened.find("rootfs").look().id == "serial-no-0042/a"
        (found,) = select(opened.scan().components, [{"id": "serial-no-0042/a", "slot": "b"}])
        assert found.name == "rootfs"


@pytest.mark.parametrize(
    ("rootfs", "camera", "error"),
    [
        ('id = ""', "", BenchKey),
        ('id = "camera"', "", BenchName),
        ("", 'id = "C24"', BenchKey),
    ],
)
def test_an_id_that_can_not_be(tmp_path: Path, rootfs: str, camera: str, error: type[BenchError]) -> None:
    text = HEAD.replace('model = "gateway"', rootfs) + CAMERA + camera + "\n"
    (tmp_path / "bench.toml").write_text(text)
    with pytest.raises(error, match="id"):
        Bench.open(tmp_path / "bench.toml", state=tmp_path / "state")
