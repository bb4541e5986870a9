"""The command line: every flag with its variable, what is refused and how, and what is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from synsweep import __version__
from synsweep.cli import main
from synsweep.controller.settings import ControllerSettings
from synsweep.flags import Duration, show_duration
from synsweep.node.settings import NodeSettings

if TYPE_CHECKING:
    from click.testing import Result

COMMANDS = {"node": NodeSettings, "controller": ControllerSettings}
HEAVY = ("kopf", "kubernetes", "pyroute2", "prometheus_client", "aiohttp", "http.server")


def call(*args: str, **environ: str) -> Result:
    return CliRunner().invoke(main, args, env=environ, prog_name="synsweep")


def options(command: str) -> dict[str, click.Option]:
    found = main.commands[command].params
    return {str(option.name): option for option in found if isinstance(option, click.Option)}


def test_the_version_is_told() -> None:
    assert call("--version").output == f"synsweep {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_is_a_flag_with_a_variable_and_the_same_default(command: str) -> None:
    flags = options(command)
    settings = {field.name: field for field in fields(COMMANDS[command])}
    assert set(flags) == set(settings)
    for name, field in settings.items():
        option = flags[name]
        assert option.opts == [f"--{name.replace('_', '-')}"]
        assert option.envvar == f"SYNSWEEP_{name.upper()}"
        assert option.help
        assert option.required == (field.default is MISSING)
        if not option.required:
            context = click.Context(main.commands[command])
            assert option.type_cast_value(context, option.default) == field.default


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_each_flag_with_variable_default_and_unit(command: str) -> None:
    shown = " ".join(call(command, "--help").output.split())
    for option in options(command).values():
        assert option.opts[0] in shown
        assert f"env var: {option.envvar}" in shown
        if isinstance(option.type, Duration):
            assert f"default: {option.default}" in shown
            assert str(option.default).endswith("s")


NODE = ("node", "--node-name", "node1")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        pytest.param([], "Usage: synsweep", id="no command"),
        pytest.param(["nodes"], "it is one of: node, controller", id="unknown command"),
        pytest.param(["node", "--sweep"], "it is one of: --allow-reset", id="unknown flag"),
        pytest.param(["node"], "Missing option '--node-name'", id="no node name"),
        pytest.param(["node", "--node-name", "Node_1"], "lower-case letters", id="no name"),
        pytest.param(["node", "--node-name", "a" * 254], "at most 253", id="too long a name"),
        pytest.param(
            [*NODE, "--namespace", "a.b"], "at most 63 lower-case letters", id="no namespace"
        ),
        pytest.param([*NODE, "--http-address", "9469"], "is not host:port", id="no address"),
        pytest.param([*NODE, "--log-level", "loud"], "'debug', 'info', 'warning'", id="no level"),
        pytest.param([*NODE, "--log-format", "xml"], "'json', 'text'", id="no format"),
        pytest.param([*NODE, "--max-stall", "0.5ms"], "not within 1ms to 1s", id="stall too short"),
        pytest.param(
            [*NODE, "--max-stall", "fast"], "is not a duration like 30s", id="no duration"
        ),
        pytest.param(
            [*NODE, "--max-deletions-per-second", "0"], "1<=x<=100000", id="no deletions at all"
        ),
        pytest.param([*NODE, "extra"], "unexpected extra argument", id="an argument"),
        pytest.param(["controller", "--reuse-after", "1s"], "within 5s to 1h", id="cooldown"),
        pytest.param(["controller", "--sweep-for", "2h"], "within 5s to 1h", id="sweep for"),
        pytest.param(["controller", "--batch-window", "-1"], "is not a duration", id="negative"),
        pytest.param(
            ["controller", "--keep-for", "30s"], "less than --sweep-for (60s)", id="keep for"
        ),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(args: list[str], said: str) -> None:
    result = call(*args)
    assert result.exit_code == 2
    assert "Usage: synsweep" in result.output
    assert said in result.output


def test_a_variable_is_refused_like_its_flag() -> None:
    result = call(*NODE, SYNSWEEP_MAX_STALL="2s")
    assert result.exit_code == 2
    assert "SYNSWEEP_MAX_STALL" in result.output
    assert "not within 1ms to 1s" in result.output


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("30s", 30.0), ("250ms", 0.25), ("1.5", 1.5), ("2m", 120.0), ("1h", 3600.0)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert Duration(least=0, most=3600).convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "s", "30 s", "1e3", "+5", "5d", "nan", "٣"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration"):
        Duration(least=0, most=3600).convert(text, None, None)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.005, 0.25, 1.0, 1.5, 30.0, 300.0, 3600.0])
def test_a_duration_is_shown_as_it_is_read(seconds: float) -> None:
    shown = show_duration(seconds)
    assert Duration(least=0, most=86400).convert(shown, None, None) == pytest.approx(seconds)


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "never"),
    [
        pytest.param("import synsweep.cli", HEAVY, id="help loads nothing heavy"),
        pytest.param(
            "import synsweep.node.run", ("kopf", "aiohttp"), id="the helper never loads kopf"
        ),
        pytest.param(
            "import synsweep.controller.run",
            ("pyroute2", "synsweep.conntrack.netlink"),
            id="the controller never loads pyroute2",
        ),
    ],
)
def test_each_part_loads_only_what_it_needs(code: str, never: tuple[str, ...]) -> None:
    assert not loaded_after(code) & set(never)


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SYNSWEEP_", "KUBE"))
    }
    return subprocess.run(
        [sys.executable, "-m", "synsweep", *args],
        env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_no_way_to_an_api_server_is_one_line_and_its_own_exit_code() -> None:
    done = run("controller", "--log-format", "text", KUBECONFIG="/nowhere")
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert "no usable access to an API server in /nowhere" in line


def typed(value: Any) -> str:
    return type(value).__name__


def test_settings_arrive_typed() -> None:
    seen: dict[str, Any] = {}
    command = main.commands["node"]
    with command.make_context("node", ["--node-name", "n", "--max-stall", "2ms"]) as context:
        seen = context.params
    settings = NodeSettings(**seen)
    assert settings.max_stall == pytest.approx(0.002)
    assert [typed(getattr(settings, field.name)) for field in fields(settings)] == [
        field.type for field in fields(settings)
    ]
