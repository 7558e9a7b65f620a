"""Settings of the explorer: the store, the address that it listens on, the token, and limits."""

from __future__ import annotations

import ipaddress
import re
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from rasterembed.errors import UsageError
from rasterembed.model.choice import Device
from rasterembed.options_model import allowed_values
from rasterembed.store.object_store import ObjectStore

DEFAULT_PORT = 8765
"""Port that the explorer listens on by default."""

TOKEN_VARIABLE = "EXPLORER_TOKEN"
"""Environment variable with the token."""

MIN_TOKEN_LETTERS = 16
"""Smallest length of a token. A shorter token could be guessed."""

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?|https?://\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?")
"""An origin, such as https://maps.example:8443. It becomes part of a header, so no other character is allowed."""

_MAX_ATTRIBUTION_LETTERS = 300
"""Longest attribution of a base map. A longer text would cover the map."""

_ANY_PORT = ":*"
"""End of an origin in `frame_origins` that stands for all ports of a host."""


class Limits(BaseModel):
    """Bounds of the work that requests can cause."""

    model_config = ConfigDict(frozen=True)

    body_bytes: int = Field(default=2**20, ge=1024)
    """Largest size of the body of a request, in bytes."""
    image_bytes: int = Field(default=20 * 2**20, ge=1024)
    """Largest size of an uploaded image, in bytes."""
    connections: int = Field(default=200, ge=4)
    """Largest number of open connections."""
    head_s: float = Field(default=10.0, gt=0)
    """Seconds that a client may take to send the head of a request."""
    body_s: float = Field(default=60.0, gt=0)
    """Seconds that a client may take to send the body after the head."""
    searches: int = Field(default=2, ge=1)
    """Number of searches that run at the same time."""
    drawings: int = Field(default=4, ge=1)
    """Number of map tiles, thumbnails and pictures that are drawn at the same time."""
    store_questions: int = Field(default=24, ge=1)
    """Number of requests that wait for the store at the same time, besides those for searches and pictures."""
    uploads: int = Field(default=4, ge=1)
    """Number of images that are in memory at the same time, while they arrive and are checked."""
    wait_s: float = Field(default=30.0, gt=0)
    """Seconds that a request waits for others to end. After them, the answer is the status 503."""
    read_s: float = Field(default=100.0, gt=0)
    """Seconds after which a request that only reads gets the status 503, if its answer has not begun."""
    ask_s: float = Field(default=280.0, gt=0)
    """The same for a request that asks, such as a search. It is shorter than the time after which
    `rasterembed.http_connections` closes the connection."""
    views: int = Field(default=8, ge=1)
    """Number of views that stay open while nobody uses them."""
    view_bytes: int = Field(default=2 * 2**30, ge=2**20)
    """Memory of the views that stay open while nobody uses them, in bytes."""


class ExplorerSettings(BaseModel):
    """Settings of the explorer.

    Raises:
        UsageError: if a value is wrong. `read` raises it.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    store: ObjectStore
    """The store that is shown."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than a loopback address needs a token."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    """Port to listen on. 0 means any free port."""
    token: SecretStr | None = None
    """Secret that a person gives on the sign-in page, and a program as `Authorization: Bearer TOKEN`. Without a token,
    nobody has to sign in."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which browsers reach the service, besides the loopback names, such as that of a proxy."""
    frame_origins: tuple[str, ...] = ()
    """Origins of pages that may show the explorer in a frame, such as that of a notebook server. `:*` at the end stands
    for all ports."""
    basemap: str | None = None
    """Address of the map tiles of a base map, with `{z}`, `{x}` and `{y}`. The plain map needs no network."""
    basemap_attribution: str | None = None
    """Text on the map that names the owners of the base map. It is shown as text, and never as HTML."""
    prefect_ui: str | None = None
    """Address of Prefect's pages. Views then link to the artifacts of their runs."""
    device: Device = "auto"
    """Device that runs the model, if people search by an image."""
    limits: Limits = Limits()
    """Bounds of the work that requests can cause."""

    @field_validator("token")
    @classmethod
    def _long_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value()) < MIN_TOKEN_LETTERS:
            raise ValueError(
                f"the token has less than {MIN_TOKEN_LETTERS} letters: make one with `openssl rand -hex 24`"
            )
        return token

    @field_validator("frame_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin.removesuffix(_ANY_PORT)):
                raise ValueError(f"{origin!r} is no origin: write it like https://host:8888")
        return origins

    @field_validator("basemap")
    @classmethod
    def _check_basemap(cls, basemap: str | None) -> str | None:
        if basemap is None:
            return None
        if not basemap.isprintable() or not _ORIGIN.fullmatch(origin_of(basemap) or ""):
            raise ValueError("the base map is no address: write it like https://host/{z}/{x}/{y}.png")
        missing = [mark for mark in ("{z}", "{x}", "{y}") if mark not in basemap]
        if missing:
            raise ValueError(
                f"the address of the base map lacks {', '.join(missing)}: write https://host/{{z}}/{{x}}/{{y}}.png"
            )
        return basemap

    @field_validator("basemap_attribution")
    @classmethod
    def _check_attribution(cls, text: str | None) -> str | None:
        if text is None:
            return None
        if not text.strip() or not text.isprintable() or len(text) > _MAX_ATTRIBUTION_LETTERS:
            raise ValueError(
                f"the attribution is empty, has more than {_MAX_ATTRIBUTION_LETTERS} letters, or has control "
                'characters: write it like "© OpenStreetMap contributors"'
            )
        return text.strip()

    @field_validator("prefect_ui")
    @classmethod
    def _check_prefect_ui(cls, address: str | None) -> str | None:
        if address is not None and not (address.isprintable() and _ORIGIN.fullmatch(origin_of(address) or "")):
            raise ValueError("the address of Prefect's pages is no URL: write it like http://127.0.0.1:4200")
        return None if address is None else address.rstrip("/")

    @model_validator(mode="after")
    def _attribution_of_basemap(self) -> Self:
        if self.basemap_attribution is not None and self.basemap is None:
            raise ValueError("`basemap_attribution` is given without `basemap`: give both, or leave it out")
        return self

    @model_validator(mode="after")
    def _token_for_others(self) -> Self:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"other machines can reach the address {self.host}, so a token is needed: give `token_file`, or set "
                f"{TOKEN_VARIABLE}; or listen on 127.0.0.1"
            )
        return self

    @classmethod
    def read(cls, **values: object) -> ExplorerSettings:
        """Return settings from values that a person gave.

        Raises:
            UsageError: if a value is wrong. The text has one line.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            place = error.errors(include_url=False, include_input=False)[0]["loc"]
            # A person gives the token in a file or a variable, so no option of this name exists.
            name = f"`{place[0]}`: " if place and place[0] != "token" else ""
            raise UsageError(f"{name}{allowed_values(error)}") from error

    @property
    def basemap_origin(self) -> str | None:
        """Origin of the base map, for the page's security policy. None if there is no base map."""
        return None if self.basemap is None else origin_of(self.basemap)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> str | None:
    """Return the origin of a URL, such as https://host:8443. None if the text is no URL.

    Example:
        >>> origin_of("https://tiles.example/{z}/{x}/{y}.png")
        'https://tiles.example'
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")
