"""`microsoft/swupdate:1` with the host's SWUpdate and with a script in the agent's place, and `:2`, a script of the update."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.updates.engine.results import ResultCode
from proxyflash.updates.errors import ManifestField, StepFailed
from proxyflash.updates.handlers.handler import StepHandler
from proxyflash.updates.handlers.swupdate import SwupdateHandler, SwupdateScriptHandler

from .steps import Stage, inline

DESCRIPTION = """software =
{{
    version = "1.1";
    hardware-compatibility: ["1.0"];
    files: ({{ filename = "payload.txt"; path = "{there}"; sha256 = "{digest}"; }});
}}
"""
# The agent's script, as far as it is called: -l LOGS and then -i IMAGE, -a or -r.
AGENT = """#!/bin/sh
echo "$@" >> {log}
if [ -e {sick} ]; then echo "ERROR it does not fit"; exit 5; fi
"""
SCRIPT = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > arguments.txt
code=$(cat {code})
while [ "$1" != --result-file ]; do shift; done
printf '{{"resultCode": %d, "resultDetails": "told"}}' "$code" > "$2"
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "bench.toml").write_text("")
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        yield opened


def handler_in(folder: Path, *words: str) -> type[SwupdateHandler]:
    """With its files in a folder. `words`: the program and its options."""

    class Handler(SwupdateHandler):
        version_file = folder / "adu-version"
        agent_script = folder / "adu-swupdate.sh"
        configuration = folder / "swupdate.cfg"
        program = words or SwupdateHandler.program

    return Handler


def stage(bench: Bench, handler: type[StepHandler], *files: str, **properties: Any) -> Stage:
    name = "microsoft/swupdate:2" if handler is SwupdateScriptHandler else "microsoft/swupdate:1"
    return Stage(bench, handler, inline(name, *files, **properties), bench.file.path.parent)


def image(folder: Path) -> None:
    """`update.swu`, signed by a key of its own: it puts `payload.txt` into `installed.txt`. And SWUpdate's configuration."""
    (folder / "payload.txt").write_text("new content\n")
    digest = hashlib.sha256((folder / "payload.txt").read_bytes()).hexdigest()
    (folder / "sw-description").write_text(DESCRIPTION.format(there=folder / "installed.txt", digest=digest))
    for command in (
        (
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 3650 -subj /CN=test "
            "-addext extendedKeyUsage=emailProtection"
        ),
        (
            "openssl cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem -outform DER "
            "-nosmimecap -binary"
        ),
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    subprocess.run(
        ["cpio", "-o", "-H", "crc", "-O", "update.swu"],
        cwd=folder,
        input=b"sw-description\nsw-description.sig\npayload.txt\n",
        check=True,
        capture_output=True,
    )
    (folder / "swupdate.cfg").write_text(f'globals :\n{{\n  public-key-file = "{folder}/cert.pem";\n}};\n')


def test_an_image_by_the_host_s_swupdate(bench: Bench, tmp_path: Path) -> None:
    for program in ("swupdate", "cpio", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    image(tmp_path)
    made = stage(bench, handler_in(tmp_path, "swupdate", "-H", "board:1.0"), "update.swu", installedCriteria="1.1")
    assert made.rollback_blocker() != ""
    for action, code in (
        ("download", ResultCode.DOWNLOAD_SUCCESS),
        ("is_installed", ResultCode.NOT_INSTALLED),
        ("backup", ResultCode.BACKUP_UNSUPPORTED),
        ("install", ResultCode.INSTALL_SUCCESS),
        ("apply", ResultCode.APPLY_IMMEDIATE_REBOOT),
        ("restore", ResultCode.RESTORE_UNSUPPORTED),
    ):
        assert made.act(action).code == code, action
    assert (tmp_path / "installed.txt").read_text() == "new content\n"
    # A changed image is refused by SWUpdate.
    (tmp_path / "installed.txt").unlink()
    data = (tmp_path / "update.swu").read_bytes()
    (tmp_path / "update.swu").write_bytes(data.replace(b"new content", b"bad content"))
    result = made.act("install")
    assert (result.code, result.extended) == (ResultCode.FAILURE, 0x30101001)
    assert "ERROR" in result.details
    assert not (tmp_path / "installed.txt").exists()


@pytest.mark.parametrize(
    ("said", "status", "succeeded"),
    [
        ("[INFO ] : SWUPDATE successful ! SWUPDATE successful !", 0, True),
        ("[INFO ] : SWUPDATE successful ! SWUPDATE successful !", 1, True),
        ("[INFO ] : SWUPDATE running\n[ERROR] : SWUPDATE failed [1] Image invalid", 1, False),
        ("SWUPDATE successful !\n[ERROR] : SWUPDATE failed [0] ERROR : late", 1, False),
        ("Error: SWUpdate is built for signed images, provide a public key file.", 1, False),
        ("", 1, False),
    ],
)
def test_what_swupdate_says_last_counts(bench: Bench, tmp_path: Path, said: str, status: int, succeeded: bool) -> None:
    """SWUpdate 2022.12 ends with 1 after some of its successes: its own last word decides."""
    (tmp_path / "said").write_text(said)
    (tmp_path / "program").write_text(f"#!/bin/sh\ncat {tmp_path}/said\nexit {status}\n")
    (tmp_path / "program").chmod(0o755)
    made = stage(bench, handler_in(tmp_path, str(tmp_path / "program")), "a.swu", installedCriteria="1.1")
    assert made.act("download").succeeded
    assert made.act("install").succeeded is succeeded


def test_without_swupdate_it_is_told_at_the_download(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench, handler_in(tmp_path, "no-such-program"), "a.swu", installedCriteria="1.1")
    for action in ("download", "install"):
        with pytest.raises(StepFailed):
            made.act(action)


def test_the_agent_s_script_is_used_where_it_is(bench: Bench, tmp_path: Path) -> None:
    log, sick = tmp_path / "log", tmp_path / "sick"
    (tmp_path / "adu-swupdate.sh").write_text(AGENT.format(log=log, sick=sick))
    (tmp_path / "adu-swupdate.sh").chmod(0o755)
    made = stage(bench, handler_in(tmp_path), "a.swu", installedCriteria="1.1")
    assert made.rollback_blocker() == ""
    for action, code in (
        ("download", ResultCode.DOWNLOAD_SUCCESS),
        ("backup", ResultCode.BACKUP_SUCCESS),
        ("install", ResultCode.INSTALL_SUCCESS),
        ("apply", ResultCode.APPLY_IMMEDIATE_REBOOT),
        ("restore", ResultCode.RESTORE_SUCCESS),
    ):
        assert made.act(action).code == code, action
    assert log.read_text().splitlines() == [
        f"-l /var/log/adu -i {tmp_path}/a.swu",
        "-l /var/log/adu -a",
        "-l /var/log/adu -r",
    ]
    sick.touch()
    result = made.act("install")
    assert (result.code, result.extended) == (ResultCode.FAILURE, 0x30101005)
    assert result.details == "adu-swupdate.sh ended with 5: ERROR it does not fit"


@pytest.mark.parametrize(
    ("text", "installed"), [("1.1", True), (" 1.1 \nmore", True), ("1.1.0", False), ("", False), (None, False)]
)
def test_the_version_file_s_first_line(bench: Bench, tmp_path: Path, text: str | None, installed: bool) -> None:
    if text is not None:
        (tmp_path / "adu-version").write_text(text)
    code = stage(bench, handler_in(tmp_path), "a.swu", installedCriteria="1.1").act("is_installed").code
    assert code == (ResultCode.INSTALLED if installed else ResultCode.NOT_INSTALLED)


@pytest.fixture
def scripted(bench: Bench, tmp_path: Path) -> Stage:
    (tmp_path / "code").write_text("600")
    (tmp_path / "run.sh").write_text(SCRIPT.format(code=tmp_path / "code"))
    (tmp_path / "a.swu").write_bytes(b"an image")
    properties = {"scriptFileName": "run.sh", "swuFileName": "a.swu", "arguments": "--x  --component-id-val"}
    return stage(bench, SwupdateScriptHandler, "run.sh", "a.swu", installedCriteria="8.0", **properties)


@pytest.mark.parametrize(
    ("version", "verb"),
    [
        (None, ["--action-install"]),
        ("2.0", ["--action-install"]),
        ("2.1", ["--action", "install"]),
        ("1.1", ["--action", "install"]),
    ],
)
def test_version_2_calls_the_update_s_script(
    scripted: Stage, tmp_path: Path, version: str | None, verb: list[str]
) -> None:
    if version is not None:
        scripted.step.handlerProperties["apiVersion"] = version
    SwupdateScriptHandler.check(scripted.step, on_component=False, place="p")
    result = scripted.act("install")
    assert (result.code, result.details) == (600, "told")
    work = tmp_path / "work"
    assert (work / "arguments.txt").read_text().splitlines() == [
        *verb,
        "--swu-file",
        f"{work}/a.swu",
        "--x",
        "n/a",
        "--work-folder",
        str(work),
        "--result-file",
        f"{work}/aduc_result.json",
        "--installed-criteria",
        "8.0",
    ]
    assert (work / "a.swu").read_bytes() == b"an image"


def test_version_2_restores_by_a_cancel(scripted: Stage, tmp_path: Path) -> None:
    assert scripted.rollback_blocker() == ""
    assert scripted.act("backup").code == ResultCode.BACKUP_SUCCESS
    (tmp_path / "code").write_text("800")
    assert scripted.act("restore").code == ResultCode.RESTORE_SUCCESS
    assert "--action-cancel" in (tmp_path / "work/arguments.txt").read_text()
    (tmp_path / "code").write_text("801")
    assert scripted.act("restore").code == ResultCode.FAILURE


def test_an_exit_status_is_version_2_s_own_failure(scripted: Stage, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\nexit 3\n")
    assert scripted.act("install").extended == 0x30101003


@pytest.mark.parametrize(
    ("handler", "files", "properties", "place"),
    [
        (SwupdateHandler, ("a", "b"), {"installedCriteria": "1"}, "files"),
        (SwupdateHandler, ("a",), {}, "installedCriteria"),
        (SwupdateScriptHandler, ("a",), {"scriptFileName": "a"}, "swuFileName"),
        (SwupdateScriptHandler, ("a",), {"swuFileName": "a"}, "scriptFileName"),
        (SwupdateScriptHandler, ("a",), {"scriptFileName": "a", "swuFileName": "a", "apiVersion": "3"}, "apiVersion"),
    ],
)
def test_properties(handler: type[StepHandler], files: tuple[str, ...], properties: dict[str, Any], place: str) -> None:
    with pytest.raises(ManifestField, match=place):
        handler.check(inline("microsoft/swupdate:1", *files, **properties), on_component=False, place="p")
