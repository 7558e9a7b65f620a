"""Settings of the webhook: environment variables that begin with UPLOAD_WEBHOOK_."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rasterembed.comma_list import split_commas
from rasterembed.environment_variables import unknown_variable
from rasterembed.errors import validation_reason
from rasterembed.store.collection_rules import CollectionRule, read_rules
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.uploads import UploadRules

_PREFIX = "UPLOAD_WEBHOOK_"
_DEFAULTS = UploadRules()

_OF_KUBERNETES = (f"{_PREFIX}PORT", f"{_PREFIX}SERVICE_")
"""Beginnings of the variables that Kubernetes sets in each container if a service has the name `upload-webhook`."""


def _split(value: object) -> object:
    return split_commas(value) if isinstance(value, str) else value


def _read_rules(value: object) -> object:
    return read_rules(value) if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class SettingsError(Exception):
    """A variable is missing or wrong. The error's text names the variable in one line."""


class Settings(BaseSettings):
    """Configuration of the webhook."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, hide_input_in_errors=True, frozen=True)

    token: SecretStr = Field(min_length=1)
    """Secret that a sender must give: as `Authorization: Bearer TOKEN`, or as the password of basic authentication."""
    mode: Literal["run", "event"] = "run"
    """`run` creates a flow run and emits an event. `event` only emits the event, for Prefect automations."""
    deployment: str = Field(default="raster-embeddings/embed-docker", pattern=r"^[^/]+/[^/]+$")
    """Deployment to run, as flow/deployment."""
    root: str
    """Folder or s3://bucket/prefix for datasets and dead letters. The usual AWS variables give the keys for S3."""
    store: str | None = None
    """Name of the object-store block for the runs. It has the credentials for `root` and for the uploads."""
    buckets: CommaSeparated = _DEFAULTS.buckets
    prefixes: CommaSeparated = _DEFAULTS.prefixes
    suffixes: CommaSeparated = _DEFAULTS.suffixes
    ignore: CommaSeparated = _DEFAULTS.ignore
    """`buckets`, `prefixes`, `suffixes` and `ignore` choose the uploads. Each of them is a list with commas; see
    `rasterembed.store.uploads.UploadRules`."""
    collections: Annotated[tuple[CollectionRule, ...], NoDecode, BeforeValidator(_read_rules)] = ()
    """Prefixes whose uploads belong to a collection, as JSON. All other uploads get a run each."""
    collection_deployment: str = Field(default="embed-collection/collection-docker", pattern=r"^[^/]+/[^/]+$")
    """Deployment to run for the uploads of a collection, as flow/deployment."""
    collection_slot_s: float = Field(default=60.0, ge=1.0, le=86_400.0)
    """Seconds that uploads of a collection are gathered before their run starts."""
    max_body_bytes: int = Field(default=2**20, ge=1024)
    """Largest size of a notification, in bytes."""
    max_records: int = Field(default=100, ge=1)
    """Largest number of records in one notification. Servers send one or a few."""
    max_connections: int = Field(default=100, ge=4)
    """Largest number of open connections. The webhook keeps fewer if it may not open enough file descriptors."""
    head_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that a client may take to send the head of a request."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that a client may take to send the body after the head."""
    prefect_api_url: str = Field(validation_alias=AliasChoices("UPLOAD_WEBHOOK_PREFECT_API_URL", "PREFECT_API_URL"))
    """URL of Prefect's API, for example http://prefect-server:4200/api."""
    prefect_api_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("UPLOAD_WEBHOOK_PREFECT_API_KEY", "PREFECT_API_KEY")
    )
    """Key of Prefect's API, if it needs one."""
    prefect_api_auth_string: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("UPLOAD_WEBHOOK_PREFECT_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
    )
    """`user:password` of a self-hosted server with basic authentication."""

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        try:
            return ObjectStore.model_validate({"root": root}).root
        except ValidationError as error:
            raise ValueError(validation_reason(error)) from error

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

    @model_validator(mode="after")
    def _run_for_collections(self) -> Self:
        if self.collections and self.mode == "event":
            raise ValueError(f"{_PREFIX}COLLECTIONS needs {_PREFIX}MODE=run: in mode event, automations start the runs")
        return self

    @classmethod
    def read(cls) -> Settings:
        """Read the settings from the environment.

        Raises:
            SettingsError: if a variable is missing, wrong or unknown.
        """
        known = [f"{_PREFIX}{name.upper()}" for name in cls.model_fields]
        if unknown := unknown_variable(_PREFIX, known, _OF_KUBERNETES):
            raise SettingsError(unknown)
        try:
            return cls()  # type: ignore[call-arg]  # pydantic takes the fields from the environment
        except ValidationError as error:
            wrong = (f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False))
            raise SettingsError("; ".join(wrong)) from error

    @property
    def rules(self) -> UploadRules:
        """Rules that choose the uploads."""
        return UploadRules(buckets=self.buckets, prefixes=self.prefixes, suffixes=self.suffixes, ignore=self.ignore)


def _variable(loc: tuple[int | str, ...]) -> str:
    name = str(loc[0]) if loc else "all"
    if name.isupper():  # It is one of Prefect's variables, which also count without the prefix.
        plain = name.removeprefix(_PREFIX)
        return f"{plain} or {_PREFIX}{plain}"
    return f"{_PREFIX}{name.upper()}"
