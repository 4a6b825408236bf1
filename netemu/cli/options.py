"""Options and arguments that several commands have, said once."""

from __future__ import annotations

from typing import Annotated

import typer

from netemu.cli.output import Format

Output = Annotated[Format, typer.Option("--output", "-o", help="table or json")]
Lab = Annotated[str, typer.Option("--lab", help="Name of the lab; may be left out while only one runs")]
LabArgument = Annotated[
    str, typer.Argument(metavar="[LAB]", help="Name of the lab; may be left out while only one runs")
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the Pod")]
From = Annotated[str, typer.Argument(metavar="FROM", help="POD, NAMESPACE/POD, node/NAME or client/NAME")]
To = Annotated[
    str, typer.Argument(metavar="TO:PORT", help="Name, address, service/NAME, pod/NAME, node/NAME or client/NAME")
]
