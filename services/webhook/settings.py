"""The webhook's settings: environment variables that begin with UPLOAD_WEBHOOK_."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rasterembed.store.object_store import ObjectStore
from rasterembed.store.uploads import UploadRules

_PREFIX = "UPLOAD_WEBHOOK_"
_DEFAULTS = UploadRules()


def _split(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class SettingsError(Exception):
    """The environment is not what the webhook needs; the text is one line."""


class Settings(BaseSettings):
    """What the webhook is configured with."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, hide_input_in_errors=True, frozen=True)

    token: SecretStr = Field(min_length=1)
    """What a sender must show: `Authorization: Bearer TOKEN`, or as the password of basic authentication."""
    mode: Literal["run", "event"] = "run"
    """`run` creates the flow run and tells of it by an event; `event` only emits, for automations to act on."""
    deployment: str = Field(default="raster-embeddings/docker", pattern=r"^[^/]+/[^/]+$")
    """The deployment to run, as flow/deployment."""
    root: str
    """Where datasets and dead letters go: a folder or s3://bucket/prefix, which the usual AWS variables reach."""
    store: str | None = None
    """Object-store block that gives the runs their credentials for `root` and the uploads."""
    buckets: CommaSeparated = _DEFAULTS.buckets
    prefixes: CommaSeparated = _DEFAULTS.prefixes
    suffixes: CommaSeparated = _DEFAULTS.suffixes
    ignore: CommaSeparated = _DEFAULTS.ignore
    """Which uploads to follow, comma-separated; see `rasterembed.store.uploads.UploadRules`."""
    max_body_bytes: int = Field(default=2**20, ge=1024)
    """Size in bytes of the largest notification that is read."""
    max_records: int = Field(default=100, ge=1)
    """Most records in one notification; servers send one or a few."""
    prefect_api_url: str = Field(validation_alias=AliasChoices("UPLOAD_WEBHOOK_PREFECT_API_URL", "PREFECT_API_URL"))
    """The Prefect server, as http://prefect-server:4200/api."""
    prefect_api_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("UPLOAD_WEBHOOK_PREFECT_API_KEY", "PREFECT_API_KEY")
    )
    """Key for Prefect's API, where it asks for one."""
    prefect_api_auth_string: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("UPLOAD_WEBHOOK_PREFECT_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
    )
    """user:password of a self-hosted server with basic authentication."""

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        return ObjectStore(root=root).root

    @field_validator("prefect_api_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("not a URL: use http://host:port/api")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.prefect_api_key and self.prefect_api_auth_string:
            raise ValueError("both a key and an auth string for Prefect: give one")
        return self

    @classmethod
    def read(cls) -> Settings:
        """The settings in the environment.

        Raises:
            SettingsError: if one is missing or wrong.
        """
        try:
            return cls()  # type: ignore[call-arg]  # the environment has them
        except ValidationError as error:
            wrong = (f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False))
            raise SettingsError("; ".join(wrong)) from error

    @property
    def rules(self) -> UploadRules:
        """Which uploads to follow."""
        return UploadRules(buckets=self.buckets, prefixes=self.prefixes, suffixes=self.suffixes, ignore=self.ignore)


def _variable(loc: tuple[int | str, ...]) -> str:
    name = str(loc[0]) if loc else "all"
    return name if name.isupper() else f"{_PREFIX}{name.upper()}"
