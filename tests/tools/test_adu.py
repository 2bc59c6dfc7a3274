"""Azure Device Update's agent: its component enumerator, called by a C program as the agent calls it, under sanitizers;
and its script handler's contract, by the script that is generated for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.tests.shared import once
from proxyflash.tools.commands import run
from proxyflash.updates.manifests.resolved_update import load

pytestmark = pytest.mark.real_time("child programs")

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tools" / "adu" / "component_enumerator.c"
EXAMPLE = ROOT / "examples" / "three_sensors"
LIBRARY = "libproxyflash_adu.so"
STRICT = ("-std=c11", "-g", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
LIMIT = 3
"""Seconds of the library's TIME_LIMIT, for commands that never end; the others have as long as they need."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The library and the agent."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")

    def make(folder: Path) -> None:
        for seconds in (LIMIT, 600):
            (folder / str(seconds)).mkdir()
            shared = ("-shared", "-fPIC", "-fvisibility=hidden", f"-DTIME_LIMIT={seconds}")
            library = folder / str(seconds) / LIBRARY
            subprocess.run(["gcc", *STRICT, *SANITIZED, *shared, "-o", library, SOURCE, "-pthread"], check=True)
        source = Path(__file__).with_name("adu_agent.c")
        subprocess.run(["gcc", *STRICT, *SANITIZED, "-o", folder / "agent", source, "-ldl", "-pthread"], check=True)

    folder = once(tmp_path_factory, "adu", make)
    return folder / "600" / LIBRARY, folder / "agent"


Called = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def agent(built: tuple[Path, Path], tmp_path: Path) -> Called:
    """Calls the library, with a configuration beside it that runs what a test puts into `command`."""
    library = tmp_path / "lib" / built[0].name
    library.parent.mkdir()
    shutil.copyfile(built[0], library)

    def call(*words: str, script: str | None = None, configuration: str | None = None) -> Any:
        if script is not None:
            (tmp_path / "good").write_text(GOOD)
            (tmp_path / "command").write_text(f"cd $(dirname $0)\n{script}")
            configuration = f"# how\n\n/bin/sh\r\n{tmp_path / 'command'}\n"
        if configuration is not None:
            (library.parent / "proxyflash-adu.conf").write_text(configuration)
        # Nothing of a person's shell: the agent is a service.
        return subprocess.run(
            [built[1], library, *words], env={}, capture_output=True, text=True, timeout=600, check=False
        )

    return call


def test_the_contract(agent: Called) -> None:
    done = agent("contract")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.0 1 0\n", "")


GOOD = r'{"components": [{"id": "\u00e9 \" x", "n": [1, -0.5e+3, true, false, null, {}], "e": []}]}'


def test_a_command_s_answer(agent: Called) -> None:
    done = agent("all", script="cat good; echo")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(GOOD)


def test_what_the_command_is_given(agent: Called) -> None:
    """The words of the file, then what is asked; an environment of its own, no input."""
    script = r"""
printf '{"words": "%s %s %s", "selector": %s, "input": "%s", "path": "%s"}\n' "$#" "$1" "$2" "$4" "$(cat)" "$PATH"
"""
    done = agent("select", '{"group": "a b"}', script=script)
    assert json.loads(done.stdout) == {
        "words": "4 adu components",
        "selector": {"group": "a b"},
        "input": "",
        "path": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def test_a_long_answer(agent: Called) -> None:
    script = "printf '{\"a\": \"'; head -c 3000000 /dev/zero | tr '\\0' x; printf '\"}'"
    done = agent("all", script=script)
    assert len(json.loads(done.stdout)["a"]) == 3_000_000


@pytest.mark.parametrize(
    "script",
    [
        "printf ''",
        "printf '{\"components\": []}'; exit 1",
        "printf '{\"components\": []}'; kill -9 $$",
        "printf '{\"components\": ['",
        "printf '{\"components\": []} {}'",
        "printf '[]'",
        "printf '{\"a\": 01}'",
        "printf '{\"a\": .5}'",
        "printf '{\"a\": 1e}'",
        'printf \'{"a": "\\\\x"}\'',
        'printf \'{"a": "\\\\u12g4"}\'',
        'printf \'{"a": "\n"}\'',
        "printf '{\"a\" 1}'",
        "printf '{\"a\": 1,}'",
        "printf '{\"a\": nul}'",
        "printf '{\"a\": 1\\0}'",
        "head -c 100000 /dev/zero | tr '\\0' '['",
        "printf '{\"a\": '; head -c 100000 /dev/zero | tr '\\0' '['",
        "printf 'E-BENCH-MISSING there is no bench.toml'",
        "exec yes",
    ],
)
def test_what_is_no_answer(agent: Called, script: str) -> None:
    done = agent("all", script=script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "NULL\n", "")


@pytest.mark.parametrize("selector", ["", "nonsense", "[]", '{"a": }', '"a"', "{" * 10_000])
def test_what_is_no_selector(agent: Called, tmp_path: Path, selector: str) -> None:
    """Nothing is run for it."""
    done = agent("select", selector, script=f"touch {tmp_path}/ran; printf '{{}}'")
    assert (done.returncode, done.stdout) == (0, "NULL\n")
    assert not (tmp_path / "ran").exists()


def test_no_selector_at_all(agent: Called) -> None:
    done = agent("null", script="printf '{}'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "NULL\n", "")


@pytest.mark.parametrize("configuration", ["", "# nothing\n", "/no/such/program\n", "\n" * 100_000])
def test_a_configuration_that_runs_nothing(agent: Called, configuration: str) -> None:
    done = agent("all", configuration=configuration)
    assert (done.returncode, done.stdout, done.stderr) == (0, "NULL\n", "")


@pytest.mark.skipif(Path("/etc/proxyflash/adu.conf").exists(), reason="this host has a configuration of its own")
def test_no_configuration(agent: Called) -> None:
    done = agent("all")
    assert (done.returncode, done.stdout, done.stderr) == (0, "NULL\n", "")


@pytest.mark.parametrize("script", ["sleep 1000", "printf '{}'; exec >&-; sleep 1000", "(sleep 1000 &); sleep 1000"])
def test_a_command_that_hangs_is_ended_with_what_it_started(
    agent: Called, built: tuple[Path, Path], tmp_path: Path, script: str
) -> None:
    shutil.copyfile(built[0].parents[1] / str(LIMIT) / LIBRARY, tmp_path / "lib" / LIBRARY)
    began = time.monotonic()
    done = agent("all", script=f"echo $$ >{tmp_path}/group; {script}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "NULL\n", "")
    assert time.monotonic() - began >= LIMIT
    group = int((tmp_path / "group").read_text())
    deadline = time.monotonic() + 300
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_agent_that_ignores_its_children(agent: Called) -> None:
    done = agent("ignoring", '{"a": "b"}', script="cat good; echo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "components" in json.loads(done.stdout)


def test_many_threads(agent: Called) -> None:
    """One call at a time: the command holds what only one may hold."""
    done = agent("threads", "24", script="mkdir held || exit 1; cat good; rmdir held")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {str(len(GOOD))}


# With proxyflash itself behind it.


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    folder = tmp_path / "bench"
    shutil.copytree(EXAMPLE, folder)
    return folder / "bench.toml"


def test_the_library_that_was_installed_answers_for_a_bench(
    built: tuple[Path, Path], bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bench", str(bench), "--state", str(tmp_path / "state")]
    folder, conf = tmp_path / "usr lib", tmp_path / "etc" / "adu.conf"
    assert run([*options, "adu", "enumerator", str(folder), "--conf", str(conf)]) == 0
    library = folder / "libproxyflash_adu.so"
    said = capsys.readouterr().out
    assert f"AducIotAgent -l 2 --extension-type componentEnumerator --register-extension '{library}'" in said
    assert conf.read_text() == (folder / "proxyflash-adu.conf").read_text()
    # The library that was built with proxyflash is without sanitizers: an agent that has none can load it.
    plain = tmp_path / "agent"
    source = Path(__file__).with_name("adu_agent.c")
    subprocess.run(["gcc", *STRICT, "-o", plain, source, "-ldl", "-pthread"], check=True)
    done = subprocess.run([plain, library, "all"], env={}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with Bench.open(bench, state=tmp_path / "state") as opened:
        expected = [component.record() for component in opened.scan().components]
    assert json.loads(done.stdout) == {"components": expected}
    chosen = subprocess.run(
        [plain, library, "select", '{"group": "imus", "model": "IMU-6"}'],
        env={},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert [item["name"] for item in json.loads(chosen.stdout)["components"]] == ["imu"]
    # What may be unplugged, and is, is not a component for the agent.
    text = bench.read_text()
    for count, optional in ((1, ""), (0, "optional = true\n")):
        bench.write_text(
            text.replace('name = "imu"\n', f'name = "imu"\n{optional}').replace("wiring =", "mute = true, wiring =")
        )
        chosen = subprocess.run(
            [plain, library, "select", '{"group": "imus"}'], env={}, capture_output=True, text=True, timeout=600
        )
        assert len(json.loads(chosen.stdout)["components"]) == count
    bench.write_text(text)
    nothing = subprocess.run(
        [plain, library, "select", '{"group": "wheels"}'], env={}, capture_output=True, text=True, timeout=600
    )
    assert json.loads(nothing.stdout) == {"components": []}


@pytest.fixture
def update(bench: Path, tmp_path: Path) -> Path:
    """The folder of an update of the imu, as `adu script` writes it."""
    folder = tmp_path / "update"
    words = ["adu", "script", str(bench.parent / "update" / "imu-1.5.0.hex"), "--version", "1.5.0"]
    words += ["--provider", "Contoso", "--name", "Imu", "--group", "imus", "--to", str(folder)]
    assert run(words) == 0
    return folder


def test_the_manifests_are_what_the_service_takes(update: Path) -> None:
    assert sorted(path.name for path in update.glob("*.json")) == [
        "Contoso.Imu-components.1.5.0.importmanifest.json",
        "Contoso.Imu.1.5.0.importmanifest.json",
    ]
    [parent] = [path for path in update.glob("*.json") if "components" not in path.name]
    loaded = load(parent)
    assert str(loaded.manifest.updateId) == "Contoso/Imu 1.5.0"
    [step] = loaded.manifest.instructions.steps
    child = loaded.child(step)  # type: ignore[arg-type]
    assert child.manifest.compatibility == ({"group": "imus"},)
    [inner] = child.manifest.instructions.steps
    assert inner.handler == "microsoft/script:1"  # type: ignore[union-attr]


def acted(update: Path, bench: Path, state: Path, action: str, *more: str) -> dict[str, Any]:
    """One call of the script, as the agent's handler makes it with the arguments of the manifest."""
    conf = update.parent / "adu.conf"
    words = (sys.executable, "-I", "-m", "proxyflash.tools", "--bench", str(bench), "--state", str(state))
    conf.write_text("".join(f"{word}\n" for word in words))
    result = update.parent / f"action_{action}_aduc_result.json"
    command: list[str | Path] = [
        update / "proxyflash-flash.sh",
        "--action",
        action,
        "--component",
        "imu",
        "--work-folder",
        update,
    ]
    command += ["--result-file", result, "--installed-criteria", "1.5.0", *more]
    environment = {"PATH": "/usr/bin:/bin", "PROXYFLASH_ADU_CONF": str(conf)}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def of_the_manifest(update: Path) -> list[str]:
    """The arguments that a signature is for, but for the component's."""
    [child] = [path for path in update.glob("*.json") if "components" in path.name]
    step = json.loads(child.read_text())["instructions"]["steps"][0]
    words: list[str] = step["handlerProperties"]["arguments"].split()
    assert words[:2] == ["--component", "--component-name-val"]
    return words[2:]


def test_the_script_flashes_no_image_but_the_manifest_s(update: Path, bench: Path, tmp_path: Path) -> None:
    """The agent checks files once, after it has fetched them."""
    state = tmp_path / "state"
    arguments = of_the_manifest(update)
    [image] = update.glob("*.hex")
    good = image.read_bytes()
    assert arguments == ["--sha256", hashlib.sha256(good).hexdigest()]
    image.write_bytes(good + b"\n")
    for action in ("download", "install"):
        found = acted(update, bench, state, action, *arguments)
        assert found["resultCode"] == 0
        assert found["resultDetails"].startswith("E-FILE-CHANGED ")
    with Bench.open(bench, state=state) as opened:
        assert opened.component("imu").look().version == "1.4.2"
    image.write_bytes(good)
    assert acted(update, bench, state, "download", *arguments)["resultCode"] == 500
    assert acted(update, bench, state, "install", *arguments)["resultCode"] == 600


def test_the_script_updates_the_component(update: Path, bench: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    codes = [
        acted(update, bench, state, action)["resultCode"]
        for action in ("download", "is-installed", "install", "apply", "is-installed", "cancel")
    ]
    assert codes == [500, 901, 600, 700, 900, 800]
    with Bench.open(bench, state=state) as opened:
        assert opened.component("imu").look().version == "1.5.0"


def test_the_script_tells_a_failure(update: Path, bench: Path, tmp_path: Path) -> None:
    (update / "imu-1.5.0.hex").write_text(":00000001FE\n")
    found = acted(update, bench, tmp_path / "state", "install")
    assert found["resultCode"] == 0
    assert found["extendedResultCode"] >> 20 == 0x320
    assert "imu" in found["resultDetails"]
    assert found["resultDetails"].startswith("E-IMAGE")


def test_the_script_without_a_configuration(update: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PROXYFLASH_ADU_CONF": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [update / "proxyflash-flash.sh"], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/nowhere can't be read; it is written by: proxyflash adu enumerator\n"


def test_an_update_for_no_component(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "adu",
        "script",
        str(bench),
        "--version",
        "1",
        "--provider",
        "P",
        "--name",
        "N",
        "--to",
        str(tmp_path / "x"),
    ]
    assert run(words) == 2
    assert "name the components: --group or --model" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
