"""Tell an S3 server to notify the upload webhook of a bucket's new objects.

On MinIO and RustFS, an ARN names the webhook (first command). On Ceph, this program also creates the notification topic
(second command):

    python -m services.webhook.notify BUCKET --arn ARN [--prefix PREFIX]
    python -m services.webhook.notify BUCKET --topic NAME --url URL [--prefix PREFIX]

The usual AWS variables name the server and its keys; UPLOAD_WEBHOOK_TOKEN holds the webhook's token.
docs/uploads.md explains how each server must be set up.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import boto3
import cyclopts
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rasterembed.store.server_settings import DEFAULT_REGION

_ID = "raster-embeddings"
"""Id of our notification in the bucket's configuration. Notifications with other ids stay unchanged."""

_KINDS = ("TopicConfigurations", "QueueConfigurations", "LambdaFunctionConfigurations", "EventBridgeConfiguration")


def notify(
    bucket: str, *, arn: str | None = None, topic: str | None = None, url: str | None = None, prefix: str = ""
) -> None:
    """Make the server notify the upload webhook of a bucket's new objects. Running this again changes nothing.

    Args:
        bucket: Bucket for uploaded rasters.
        arn: The server's name for the webhook, for example arn:minio:sqs::UPLOADS:webhook.
        topic: Name of the topic to create, on servers whose API creates topics, such as Ceph.
        url: Address of the webhook for that topic, for example https://host:8080/uploads.
        prefix: Only keys that begin with this prefix are announced.
    """
    try:
        if arn and not topic and not url:
            subscribe(_client("s3", config=_path_style()), bucket, "QueueConfigurations", arn, prefix)
        elif topic and url and not arn:
            token = os.environ.get("UPLOAD_WEBHOOK_TOKEN") or _end("UPLOAD_WEBHOOK_TOKEN is not set", 2)
            sns = _client("sns", endpoint_url=_endpoint())
            topic_arn = make_topic(sns, topic, url, token)
            subscribe(_client("s3", config=_path_style()), bucket, "TopicConfigurations", topic_arn, prefix)
        else:
            _end("give either --arn, or --topic and --url", 2)
    except (ClientError, BotoCoreError, OSError, ValueError) as error:
        _end(str(error), 1)
    print(f"{bucket}: s3:ObjectCreated:* under {prefix!r} goes to {arn or url}")


def make_topic(sns: Any, name: str, url: str, token: str) -> str:
    """Create a persistent topic that posts to the webhook, and return its ARN.

    Args:
        sns: client of the server's notification API.
        name: name of the topic.
        url: address of the webhook, for example https://host:8080/uploads.
        token: the webhook's token. The topic sends the token as a password.

    Raises:
        ValueError: if `url` is not a plain HTTP address, or the server refuses the topic.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"{url!r} is not the webhook's address: use https://host:8080/uploads")
    endpoint = parts._replace(netloc=f"webhook:{quote(token, safe='')}@{parts.netloc}").geturl()
    try:
        return str(
            sns.create_topic(Name=name, Attributes={"push-endpoint": endpoint, "persistent": "true"})["TopicArn"]
        )
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise ValueError(
            f"topic {name!r}: the server answered {status}. Ceph takes a token only over TLS, or from a proxy that "
            "declares TLS (rgw_trust_forwarded_https)"
        ) from error


def subscribe(s3: Any, bucket: str, kind: str, arn: str, prefix: str) -> None:
    """Add our notification to a bucket, or replace the one that an earlier call added."""
    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    wanted = {name: found[name] for name in _KINDS if name in found}
    ours: dict[str, Any] = {
        "Id": _ID,
        kind.replace("Configurations", "Arn"): arn,
        "Events": ["s3:ObjectCreated:*"],
    }
    if prefix:
        ours["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
    wanted[kind] = [other for other in wanted.get(kind, []) if other["Id"] != _ID] + [ours]
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)


def _client(service: str, **options: Any) -> Any:
    """Return a client of a service in the store's region. boto3 does not read AWS_REGION, and has no default region."""
    region = boto3.Session(region_name=os.environ.get("AWS_REGION") or None).region_name
    return boto3.client(service, region_name=region or DEFAULT_REGION, **options)


def _endpoint() -> str | None:
    """Return the URL of the server for requests about topics. boto3 uses AWS_ENDPOINT_URL_S3 only for S3 requests."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _path_style() -> Config:
    return Config(s3={"addressing_style": "path"})


def _end(reason: str, status: int) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    cyclopts.run(notify)
