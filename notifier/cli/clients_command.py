"""The commands `notifier clients list` and `show`: the current clients, and the registry source of each value."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import reader_builder
from notifier.configuration.loading import LoadedConfiguration
from notifier.configuration.provenance import sources_of, values_of
from notifier.features import FEATURES
from notifier.model.printable import counted, json_text, printable
from notifier.operators.terminal.command_options import Config, Json, load_configuration, quiet_logs
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.screen import Grid, make_screen
from notifier.settings.clients import ClientOptions

app = typer.Typer()


@command_group(app)
def _group() -> None:
    """Show the clients that are in force, and where each value of them comes from.

    Examples:
        # every client with its address and its sources
        notifier clients list -c n.yaml
        # everything about one client, and where each value comes from
        notifier clients show -c n.yaml shop
    """


RegistrySourceOption = Annotated[str | None, typer.Option(help="Only clients of this registry source.")]
IssOption = Annotated[str | None, typer.Option("--iss", help="Only clients of this issuer.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Connect to nothing: take registry sources from the cache, if there is one.")
]


@command(app)
def list_(
    config: Config = None,
    source: RegistrySourceOption = None,
    iss: IssOption = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """List the clients with their addresses, and the registry sources that have them.

    The command reads each source as a worker does. If one cannot be read, it reports that and uses the cache, and the
    exit status is 1. Clients that cannot be used come last, each with the reason.

    Examples:
        # every client with its address and its sources
        notifier clients list -c n.yaml
        # what one registry source has
        notifier clients list -c n.yaml --source kc
        # clients that cannot be notified, for a script
        notifier clients list -c n.yaml --json | jq -r '.clients[] | select(.backchannel_logout_uri|not).client_id'
    """
    loaded, sources = _load_clients(config, offline=offline, as_json=as_json, source=source)
    rows = _rows_of(loaded, source, iss)
    left_out = [{"client": fault.path, "reason": fault.text} for fault in loaded.faults]
    del loaded  # so that its memory serves for the table
    if as_json:
        say_json({"clients": [*rows], "left_out": left_out, "problems": sources.problems}, indent=2)
    else:
        _print_list(rows, left_out)
    raise typer.Exit(1 if sources.problems else 0)


def _rows_of(loaded: LoadedConfiguration, source: str | None, iss: str | None) -> Iterator[dict[str, Any]]:
    """Yield the clients of this source and issuer. They are made one by one: 200,000 take 90 MiB."""
    for (client_iss, client_id), parts in sources_of(loaded).items():
        names = [name.partition(" ")[0] for name, _ in parts]  # without the path of a file
        client = loaded.registry.clients_of(client_iss).get(client_id)
        is_selected = (source is None or source in names) and iss in (None, client_iss)
        if client is None or not is_selected:
            continue
        yield {
            "iss": client_iss,
            "client_id": client_id,
            "backchannel_logout_uri": client.backchannel_logout_uri,
            "channel": client.channel and {"kind": client.channel.kind, "uri": client.channel.uri},
            "front_channel": None if client.front_channel is None else client.front_channel.way.value,
            "frontchannel_logout_uri": client.front_channel and client.front_channel.frontchannel_logout_uri,
            "paused": client.paused,
            "follows": client.follows,
            "sources": names,
        }


@command(app)
def show(
    client_id: Annotated[str, typer.Argument(metavar="CLIENT_ID", help="The client.")],
    config: Config = None,
    iss: IssOption = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Show everything that is in force for a client, and where each value comes from.

    A value comes from a registry source, from `registry.defaults`, from the client's preset, or is a default. Values
    that may hold secrets are not shown. The exit status is 1 if there is no such client, or if a source cannot be read.

    Examples:
        # everything about one client, and where each value comes from
        notifier clients show -c n.yaml shop
        # the same for a script
        notifier clients show -c n.yaml shop --json | jq -r '.[0].values'
    """
    loaded, sources = _load_clients(config, offline=offline, as_json=as_json, source=None)
    clients: list[dict[str, Any]] = []
    for (client_iss, name), parts in sources_of(loaded).items():
        registered_id = loaded.registry.aliases.get(client_iss, {}).get(client_id)  # if `client_id` is an alias
        if name in (client_id, registered_id) and iss in (None, client_iss):
            values = [
                {"member": value.member, "value": value.value, "from": value.origin}
                for value in values_of(loaded, (client_iss, name), parts)
            ]
            clients.append({"iss": client_iss, "client_id": name, "left_out": None, "values": values})
    for client_iss, faults in loaded.registry.faults.items():
        if client_id in faults and iss in (None, client_iss):
            client = next((client for client in clients if client["iss"] == client_iss), None)
            if client is None:
                client = {"iss": client_iss, "client_id": client_id, "values": []}
                clients.append(client)
            client["left_out"] = faults[client_id]
    if as_json:
        say_json(clients, indent=2)
    else:
        _print_clients(clients)
    if not clients:
        say(f"notifier: no registry source has a client {printable(client_id)!r}", err=True)
        for fault in loaded.faults:
            if fault.path.startswith(f"client {client_id!r} of "):
                say(f"notifier: left out: {printable(str(fault))}", err=True)
    raise typer.Exit(1 if sources.problems or not clients else 0)


def _load_clients(
    config: Any, *, offline: bool, as_json: bool, source: str | None
) -> tuple[LoadedConfiguration, DirectReader]:
    """Load the configuration, and report registry sources that cannot be read.

    Raises BadParameter if the configuration lacks the registry source `source`.
    """
    quiet_logs()
    sources = DirectReader(None if offline else reader_builder(FEATURES))
    loaded = load_configuration(config, FEATURES, as_json=as_json, answer_of=sources, keep_rows=True)
    names = [layer.name for layer in loaded.layers]
    if source is not None and source not in names:
        text = f"there is no registry source {source!r}; there are {', '.join(names) or 'none'}"
        raise typer.BadParameter(text, param_hint="--source")
    for name, text in sources.problems.items():
        effect = "its cache is shown" if name in sources.cached else "its clients are missing"
        say(f"notifier: registry source {name} cannot be read: {printable(text)}; {effect}", err=True)
    return loaded, sources


def _format_front_channel(row: dict[str, Any]) -> str:
    """Return how a client without a back-channel URI is notified."""
    if row["front_channel"] is None:
        return "– never notified"
    sender = "a worker" if row["front_channel"] == "server" else "browsers"
    return f"{row['frontchannel_logout_uri']} (GET by {sender})"


def _print_list(rows: Iterator[dict[str, Any]], left_out: list[dict[str, str]]) -> None:
    """Print the table of clients by issuer, their number, and the clients that were left out."""
    console = make_screen()
    table = Grid("client", "backchannel_logout_uri", "sources")
    count = 0
    for row in rows:
        count += 1
        uri = row["backchannel_logout_uri"] or _format_front_channel(row)
        if row["channel"] is not None:
            uri = f"{row['channel']['uri']} ({row['channel']['kind']})"
        if row["paused"]:
            uri += " (paused)"
        if row["follows"] is not None:
            uri += f" (follows {row['follows']})"
        table.add_row(row["client_id"], uri, ", ".join(row["sources"]), issuer=row["iss"])
    console.print(table)
    say(counted(count, "client"))
    for client in left_out:
        console.print(f"left out: {client['client']}: {client['reason']}", style="yellow")


def _format_value(member: str, value: object) -> str:
    """Return a value as a configuration file has it."""
    option = member.removeprefix("notifier.")
    if isinstance(value, float) and option in ClientOptions.model_fields:  # a default, in seconds if it is a duration
        options: dict[str, Any] = {option: value}
        value = ClientOptions.model_construct(**options).model_dump(mode="json")[option]
    return value if isinstance(value, str) else json_text(value)


def _print_clients(clients: list[dict[str, Any]]) -> None:
    """Print for each client why it was left out, if it was, and a table of its values with their sources."""
    console = make_screen()
    for client in clients:
        console.print(f"{client['client_id']} of {client['iss']}", style="bold")
        if client["left_out"]:
            console.print(f"left out: {client['left_out']}", style="yellow")
        if not client["values"]:
            continue
        table = Grid("member", "value", "from")
        for value in client["values"]:
            table.add_row(value["member"], _format_value(value["member"], value["value"]), value["from"])
        console.print(table)
