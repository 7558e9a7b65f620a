"""Makes the stack's buckets, and has the S3 server tell the webhook of uploads to `rasters`; harmless when repeated."""

import os

import boto3
from botocore.exceptions import ClientError

client = boto3.client("s3")
for bucket in ("rasters", "datasets"):
    try:
        client.create_bucket(Bucket=bucket)
        print(f"made bucket {bucket}")
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
client.put_bucket_notification_configuration(
    Bucket="rasters",
    NotificationConfiguration={
        "QueueConfigurations": [{"QueueArn": os.environ["NOTIFICATION_ARN"], "Events": ["s3:ObjectCreated:*"]}]
    },
)
print("uploads to rasters are announced to the webhook")
