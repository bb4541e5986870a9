"""The command line: `synsweep controller | node`, with an environment variable for every flag.

It checks what is given, sets up the log and hands one settings value to the part that was asked
for. The parts are imported only then: the helper never loads kopf, the controller never pyroute2,
and `--help` neither. Exit codes: 0 after SIGTERM or SIGINT; 2 for what the user gave (with the
allowed values, or a node name that is none); 3 no conntrack; 4 no way to an API server; 1 the rest.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, NoReturn

import click

from synsweep import __version__
from synsweep.controller.settings import ControllerSettings
from synsweep.flags import DNS_LABEL, DNS_SUBDOMAIN, HTTP_ADDRESS, Duration, show_duration
from synsweep.node.settings import NodeSettings
from synsweep.observe import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., None]


class _Commands(click.Group):
    """A group that names its commands when it is given another one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"No such command {args[0]!r}; it is one of: {', '.join(self.commands)}.")
        return super().resolve_command(ctx, args)


class _Command(click.Command):
    """A command that names its flags when it is given another one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = sorted(flag for param in self.get_params(ctx) for flag in param.opts)
            ctx.fail(f"{error.message.rstrip('.')}; it is one of: {', '.join(known)}.")


def _setting(
    settings: type, name: str, kind: click.ParamType[Any] | type, text: str
) -> Callable[[Command], Command]:
    """Make the flag for one field of a settings value: name, variable and default come from it."""
    field = next(field for field in fields(settings) if field.name == name)
    variable = f"SYNSWEEP_{name.upper()}"
    default: dict[str, Any] = {} if field.default is MISSING else {"default": field.default}
    if default and isinstance(kind, Duration):
        default["default"] = show_duration(default["default"])
    return click.option(
        f"--{name.replace('_', '-')}",
        type=kind,
        envvar=variable,
        show_envvar=True,
        show_default=True,
        required=not default,
        is_flag=kind is bool,
        help=text,
        **default,
    )


def _common(settings: type) -> Callable[[Command], Command]:
    options = (
        _setting(
            settings,
            "namespace",
            DNS_LABEL,
            "Namespace of the controller; it keeps its cleanups there.",
        ),
        _setting(
            settings,
            "http_address",
            HTTP_ADDRESS,
            "Where /healthz, /readyz and /metrics are served: host:port, [IPv6]:port or :port.",
        ),
        _setting(settings, "log_level", click.Choice(logs.LEVELS), "Least level that is logged."),
        _setting(settings, "log_format", click.Choice(logs.FORMATS), "Form of a log line."),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="synsweep", message="%(prog)s %(version)s")
def main() -> None:
    """Remove half-open connections to backends that are gone.

    Both parts find the API server by KUBECONFIG, or inside a pod by its service account.
    """


@main.command(cls=_Command)
@_setting(
    NodeSettings,
    "node_name",
    DNS_SUBDOMAIN,
    "Name of the Node that this runs on.",
)
@_common(NodeSettings)
@_setting(
    NodeSettings,
    "allow_reset",
    bool,
    "Let policies reset connections that reached the wrong pod; without it none is reset.",
)
@_setting(
    NodeSettings,
    "max_stall",
    Duration(least=0.001, most=1),
    "Longest that a dump may hold up packets on its CPU, 1ms to 1s; larger tables are streamed.",
)
@_setting(
    NodeSettings,
    "max_deletions_per_second",
    click.IntRange(1, 100_000),
    "Entries per second that this node deletes; what is over waits for the next sweep.",
)
def node(**given: Any) -> NoReturn:
    """Sweep this node's connection table. Needs CAP_NET_ADMIN in the host's network."""
    settings = NodeSettings(**given)
    logs.configure(level=settings.log_level, format=settings.log_format)
    from synsweep.node.run import run_node  # noqa: PLC0415 - the controller never loads it

    raise SystemExit(run_node(settings))


@main.command(cls=_Command)
@_common(ControllerSettings)
@_setting(
    ControllerSettings,
    "reuse_after",
    Duration(least=5, most=3600),
    "The CNI's cooldown: how long it keeps the address of a deleted pod back, 5s to 1h.",
)
@_setting(
    ControllerSettings,
    "sweep_for",
    Duration(least=5, most=3600),
    "How long nodes sweep again and again for a backend that is gone, 5s to 1h.",
)
@_setting(
    ControllerSettings,
    "keep_for",
    Duration(least=5, most=86400),
    "How long a cleanup stays for nodes that come late, 5s to 24h, not less than --sweep-for.",
)
@_setting(
    ControllerSettings,
    "batch_window",
    Duration(least=0, most=5),
    "How long removals are collected, and then checked again, before nodes are told, 0s to 5s.",
)
@_setting(
    ControllerSettings,
    "resync_every",
    Duration(least=5, most=3600),
    "How often the index is compared with a fresh list, 5s to 1h.",
)
@_setting(
    ControllerSettings,
    "lease_name",
    DNS_SUBDOMAIN,
    "Name of the Lease that decides which of two replicas writes; one replica needs none.",
)
def controller(**given: Any) -> NoReturn:
    """Tell the nodes which backends are gone. Needs no capability."""
    settings = ControllerSettings(**given)
    if settings.keep_for < settings.sweep_for:
        raise click.BadParameter(
            f"{settings.keep_for:g}s is less than --sweep-for ({settings.sweep_for:g}s).",
            param_hint="'--keep-for'",
        )
    logs.configure(level=settings.log_level, format=settings.log_format)
    from synsweep.controller.run import run_controller  # noqa: PLC0415 - the helper never loads it

    raise SystemExit(run_controller(settings))
