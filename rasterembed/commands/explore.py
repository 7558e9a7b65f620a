"""`rasterembed explore`: serve a web page on which people look at a store and search it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from rasterembed.command_line.command_app import command_app
from rasterembed.command_line.command_store import open_command_store
from rasterembed.errors import UsageError, os_errors
from rasterembed.explorer.settings import DEFAULT_PORT, TOKEN_VARIABLE, ExplorerSettings
from rasterembed.model.choice import Device


def explore(
    root: str | None = None,
    host: str = "127.0.0.1",
    port: Annotated[int, Field(ge=0, le=65_535)] = DEFAULT_PORT,
    token_file: Path | None = None,
    allowed_host: tuple[str, ...] = (),
    frame_origin: tuple[str, ...] = (),
    basemap: str | None = None,
    basemap_attribution: str | None = None,
    prefect_ui: str | None = None,
    device: Device = "auto",
    open_page: Annotated[bool, Parameter(name="--open", negative=())] = False,
) -> None:
    """Serve a web page with a map of the datasets and collections of a store, until the command is stopped.

    Click a tile, and the most similar tiles light up. The command only reads the store. Only this machine can reach the
    page, unless `host` is another address. A token is then necessary: in a file, or in the variable EXPLORER_TOKEN.

    Args:
        root: Folder or s3://bucket/prefix of the datasets and collections. The default is the folder rasterembed-store.
        host: Address to listen on. 0.0.0.0 listens on all addresses of the machine, and needs a token.
        port: Port to listen on. 0 takes any free port.
        token_file: File with the token, a secret of 16 or more letters. The page then asks for it.
        allowed_host: Name by which browsers reach the page, such as that of a proxy. The option may be repeated.
        frame_origin: Origin of a page that may show this page in a frame, such as http://localhost:8888 of a notebook
            server. The option may be repeated.
        basemap: Address of map tiles that are drawn below the rasters, such as https://host/{z}/{x}/{y}.png. Without
            it, the map needs no internet.
        basemap_attribution: Text on the map that names the owners of the base map. Most of them ask for it.
        prefect_ui: Address of Prefect's pages, such as http://127.0.0.1:4200. The page then links to the runs.
        device: Device that runs the model, if people search by an image.
        open_page: Open the page in a browser.
    """
    store = open_command_store(root)
    store.check_folder()
    token = _read_token(token_file)
    # FastAPI, uvicorn and the searcher take a second to import, which would delay the help.
    from rasterembed.explorer.serving import serve

    settings = ExplorerSettings.read(
        store=store,
        host=host,
        port=port,
        token=token,
        allowed_hosts=allowed_host,
        frame_origins=frame_origin,
        basemap=basemap,
        basemap_attribution=basemap_attribution,
        prefect_ui=prefect_ui,
        device=device,
    )
    serve(settings, open_page=open_page)


def _read_token(file: Path | None) -> str | None:
    """Return the token from a file or from the environment, or None if none is given.

    Raises:
        UsageError: if the file is empty.
        StoreError: if the file cannot be read.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    with os_errors(str(file)):
        text = file.read_text(errors="replace").strip()
    if not text:
        raise UsageError(f"{file}: the file with the token is empty: write one with `openssl rand -hex 24`")
    return text


app = command_app("explore", explore, keeps_work=False)
