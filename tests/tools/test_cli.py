"""The command line: its help, its errors, its exit statuses, its machine-readable forms."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
from proxyflash.tools import commands
from proxyflash.tools.commands import MODULES, cli
from proxyflash.tools.help_text import COLUMNS, HELP, narrowed

EVERY = [name for name in MODULES if name not in ("adu", "bench", "manifest", "service", "vm")]


def run(*arguments: str | Path) -> int:
    return commands.run([str(item) for item in arguments])


def test_the_help_lists_the_commands_there_are() -> None:
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", HELP.partition("\nComponents:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(MODULES)


def test_the_help_lists_the_global_options_there_are() -> None:
    options = {option for parameter in cli.params for option in parameter.opts if option.startswith("--")}
    assert options | {"--help"} == set(re.findall(r"--[a-z-]+", HELP.partition("Options:")[2].partition("Comp")[0]))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_needs_no_import_of_consequence(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['proxyflash', *{arguments!r}]\n"
        "from proxyflash.tools.cli import main; main()\n"
        "heavy = {'click', 'rich', 'pydantic', 'jinja2', 'can', 'serial', 'usb'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == HELP


def test_a_flash_of_a_target_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    (tmp_path / "fw.bin").write_bytes(bytes(range(64)))
    arguments = [
        "flash",
        "stm32-uart:/dev/none",
        f"{tmp_path}/fw.bin",
        "--address",
        "0",
        "--yes",
        "--state",
        f"{tmp_path}/state",
    ]
    code = (
        f"import sys; sys.argv = ['proxyflash', *{arguments!r}]\n"
        "from proxyflash.tools.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 4, end.code\n"
        "ours = ('updates.engine', 'updates.handlers', 'updates.manifests', 'transports.recording', 'enumerators.scan')\n"
        "heavy = {'rich', 'cryptography', 'jinja2', 'can', 'usb', *(f'proxyflash.{name}' for name in ours)} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_help_fits_into_a_narrow_terminal() -> None:
    assert all(len(line) <= COLUMNS for line in HELP.split("\n"))
    text = narrowed(40)
    assert all(len(line) <= 40 for line in text.split("\n"))
    assert text.split() == HELP.split()


@pytest.mark.parametrize("name", EVERY)
def test_every_command_explains_itself_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    out = capsys.readouterr().out
    assert f"proxyflash {name}" in out.partition("\n")[2]
    assert "--json" in out


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["--nonsense"], ["flash"], ["flash", "imu"], ["read", "imu", "x.bin", "--start", "zero"], ["image"]],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert "Usage:" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert re.search(r"\d+\.\d+\.\d+", capsys.readouterr().out)


def test_without_a_bench_file_it_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("scan") == 12
    error = capsys.readouterr().err
    assert error.startswith("E-BENCH-MISSING there is no bench.toml in ")
    assert "proxyflash bench init" in error
    assert "Traceback" not in error


def test_an_error_as_json_goes_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--bench", tmp_path / "none.toml", "--json", "scan") == 12
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["schema"] == 1
    assert document["error"]["code"] == "E-BENCH-MISSING"
    assert document["error"]["exit_status"] == 12
    assert err == ""


def test_a_global_option_may_stand_behind_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scan", "--bench", tmp_path / "none.toml", "--json") == 12
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E-BENCH-MISSING"


def test_an_unwanted_traceback_shows_with_vv_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("-vv", "--bench", tmp_path / "none.toml", "scan")
    assert "Traceback" in capsys.readouterr().err


def test_a_log_file_keeps_what_was_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    run("--log-file", log, "--bench", tmp_path / "none.toml", "scan")
    assert "E-BENCH-MISSING" in log.read_text()
    assert run("--log-file", tmp_path / "no" / "log.txt", "plugins") == 2
    assert "E-LOG" in capsys.readouterr().err


@pytest.mark.parametrize("umask", [0o000, 0o022], ids=oct)
def test_a_log_file_is_its_owner_s_alone(tmp_path: Path, umask: int) -> None:
    new, there = tmp_path / "new", tmp_path / "there"
    there.write_text("older\n")
    there.chmod(0o644)
    before = os.umask(umask)
    try:
        for log in (new, there):
            run("--log-file", log, "--bench", tmp_path / "none.toml", "scan")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(log.stat().st_mode) for log in (new, there)] == [0o600, 0o644]
    assert there.read_text().startswith("older\n")


def test_an_unknown_component_is_not_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = tmp_path / "bench.toml"
    bench.write_text("")
    (tmp_path / "fw.bin").write_bytes(b"x")
    assert run("--bench", bench, "flash", "imu", tmp_path / "fw.bin") == 4
    assert "E-COMPONENT" in capsys.readouterr().err


def test_a_bench_file_that_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = tmp_path / "bench.toml"
    bench.write_text('[bus.a]\nkind = "can"\ninterface = "virtual"\n')
    assert run("--bench", bench, "bench", "check") == 0
    assert "OK  1 bus, 0 components" in capsys.readouterr().out
    assert run("bench", "schema") == 0
    assert "component" in json.loads(capsys.readouterr().out)["properties"]


def test_what_an_image_holds_and_its_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "fw.bin"
    source.write_bytes(bytes(range(200)))
    target = tmp_path / "fw.hex"
    assert run("image", source, "--address", "0x08000000", "--to", target) == 0
    assert "0x08000000..0x080000C7  200 bytes" in capsys.readouterr().out
    assert run("image", target, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "ihex"
    assert document["segments"] == [{"address": 0x08000000, "bytes": 200}]
    assert run("image", tmp_path / "none.hex") == 12


def test_a_demo_folder_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert run("demo", tmp_path) == 2
    assert "E-DEMO-FOLDER" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.txt"]


def test_component_names_complete(tmp_path: Path) -> None:
    bench = tmp_path / "bench.toml"
    bench.write_text('[[component]]\nname = "imu"\n[[component]]\nname = "radar"\n')
    environment = {"_PROXYFLASH_COMPLETE": "bash_complete", "COMP_WORDS": "proxyflash flash ra", "COMP_CWORD": "2"}
    done = subprocess.run(
        [Path(sys.executable).parent / "proxyflash"],
        env=environment | {"PROXYFLASH_BENCH": str(bench), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["plain,radar"]


def test_commands_load_from_the_module_that_has_them() -> None:
    context = click.Context(cli)
    for name in MODULES:
        assert cli.get_command(context, name) is not None, name


def test_the_columns_of_plugins_are_as_wide_as_what_stands_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plugins") == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert len(rows) > 20
    assert {(len(re.split(r" {2,}", row.strip())), row.rindex("  ok")) for row in rows} == {(4, len(rows[0]) - 4)}
