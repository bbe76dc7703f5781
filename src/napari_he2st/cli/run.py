"""``he2st run``: a script that the window wrote."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Annotated

import typer

from napari_he2st.cli.options import examples
from napari_he2st.core.errors import He2stError

app = typer.Typer()


@app.command(epilog=examples("he2st run section.py"))
def run(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT.py", help="Script of Copy as Python.", show_default=False)],
) -> None:
    """Run a script that the window wrote, in this folder. It is Python: run only what you trust."""
    if not script.is_file():
        raise He2stError(
            "There is no such script", where=script, todo="Write it with Copy as Python in the Export dock"
        )
    runpy.run_path(str(script), run_name="__main__")
