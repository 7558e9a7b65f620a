"""The address and the credentials of an S3 server: of a store, or of the place that rasters are read from."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from rasterembed.comma_list import split_commas
from rasterembed.options_model import OneLineErrors
from rasterembed.store.https_url import canonical_host

if TYPE_CHECKING:
    from rasterembed.store.https import HttpsClient
    from rasterembed.store.s3 import S3Storage

DEFAULT_REGION = "us-east-1"

_HOST_NAME = re.compile(r"(?:(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.|$))+", re.IGNORECASE)
"""A host name, or an address of IPv4. botocore accepts no other host."""


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:  # The port is no number, or too large.
        return False


class ServerSettings(BaseModel):
    """The address and the credentials of an S3 server."""

    # Error texts must not show a refused value, because the value may hold a secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    endpoint_url: str | None = Field(
        default=None,
        description="URL of the S3 server, as http://minio:9000; http:// turns TLS off. "
        "Empty: AWS_ENDPOINT_URL, or else AWS.",
    )
    access_key: SecretStr | None = Field(default=None, description="Access key id. Empty: the AWS credentials chain.")
    secret_key: SecretStr | None = Field(default=None, description="Secret access key.")
    region: str | None = Field(default=None, description="Region of the bucket. Empty: AWS_REGION, or else us-east-1.")
    path_style: bool = Field(
        default=True,
        description="Put the bucket into the path of a URL (host/bucket), as MinIO does, not into the host name.",
    )

    @field_validator("endpoint_url")
    @classmethod
    def _check_endpoint(cls, url: str | None) -> str | None:
        if not url or not url.strip():
            return None
        parts = urlsplit(url.strip())
        extra = "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in ("http", "https") or not parts.hostname or extra or not _has_valid_port(parts):
            raise ValueError("the endpoint is not the URL of a server: use http://host:port or https://host")
        if ":" not in parts.hostname and not _HOST_NAME.fullmatch(parts.hostname):
            raise ValueError(
                f"the endpoint's host {parts.hostname!r} is no host name, which has only letters, digits, hyphens and "
                "dots: use another name of the server, or its IP address"
            )
        return parts.geturl().rstrip("/")

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("one of access_key and secret_key is missing: give both, or neither")
        return self

    def open_s3(
        self, *, endpoint_url: str | None, region: str | None, unsigned: bool, requester_pays: bool = False
    ) -> S3Storage:
        """Return the storage on this server, with these keys.

        Args:
            endpoint_url: URL of the server, or None for AWS.
            region: region of the buckets, or None for `DEFAULT_REGION`.
            unsigned: True to send no credentials, for public buckets.
            requester_pays: True to accept the costs of each request.
        """
        # Import the S3 packages only for S3, because they take a quarter of the library's import time.
        from rasterembed.store.s3 import S3Storage

        return S3Storage(
            endpoint_url=endpoint_url,
            access_key=self.access_key.get_secret_value() if self.access_key else None,
            secret_key=self.secret_key.get_secret_value() if self.secret_key else None,
            region=region or DEFAULT_REGION,
            path_style=self.path_style,
            unsigned=unsigned,
            requester_pays=requester_pays,
        )


class SourceSettings(ServerSettings):
    """The fields of a `SourceStore`. The Prefect block shares them."""

    endpoint_url: str | None = Field(
        default=None,
        description="URL of the S3 server, as https://data.example.org; http:// is without TLS. Empty: AWS.",
    )
    region: str | None = Field(default=None, description="Region of the bucket. Empty: us-east-1.")
    anonymous: bool = Field(default=False, description="Send no credentials. Public buckets accept this.")
    requester_pays: bool = Field(
        default=False, description="Accept the costs of requests to a bucket whose owner does not pay them."
    )
    https_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that rasters and STAC documents with https:// are read from, such as data.example.org or "
        "stac.internal:8443. Redirects to other hosts are refused. Empty: https:// is not read.",
    )
    https_private: bool = Field(
        default=False,
        description="Read from these hosts even if their addresses are private, as those of servers in your own "
        "network are.",
    )

    @field_validator("https_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, hosts: object) -> object:
        # An environment variable holds a text, with commas between the hosts.
        return split_commas(hosts) if isinstance(hosts, str) else hosts

    @field_validator("https_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(canonical_host, hosts)))

    @model_validator(mode="after")
    def _check_anonymous(self) -> Self:
        if self.anonymous and (self.access_key is not None or self.requester_pays):
            raise ValueError("anonymous requests have no keys, and nobody pays for them: give one or the other")
        return self


class SourceStore(SourceSettings, OneLineErrors):
    """How rasters are read from other servers than the store's: an S3 server, and web servers over https.

    The variables `AWS_ENDPOINT_URL` and `AWS_REGION` are not used: they belong to the store. Without an endpoint, the
    server is AWS. Without keys, the AWS credentials chain gives them.

    Example:
        >>> from rasterembed.store.object_store import ObjectStore
        >>> store = ObjectStore(root="embeddings", source_store=SourceStore(anonymous=True, region="us-west-2"))
        >>> store.source_store.endpoint is None  # AWS
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, ignored_types=(cached_property,))

    @property
    def endpoint(self) -> str | None:
        """URL of the S3 server, or None for AWS."""
        return self.endpoint_url

    @property
    def unsigned(self) -> bool:
        """Whether requests are sent without a signature."""
        return self.anonymous

    @cached_property
    def s3(self) -> S3Storage:
        """The storage on the server."""
        return self.open_s3(
            endpoint_url=self.endpoint,
            region=self.region,
            unsigned=self.anonymous,
            requester_pays=self.requester_pays,
        )

    @cached_property
    def https(self) -> HttpsClient:
        """The client that reads from the hosts in `https_hosts`."""
        return open_https(self.https_hosts, private=self.https_private)


def open_https(hosts: tuple[str, ...], *, private: bool) -> HttpsClient:
    """Return a client that reads from these hosts. See `SourceSettings`."""
    # Import the packages for https only if they are used.
    from rasterembed.store.https import HttpsClient

    return HttpsClient(hosts, private=private)
