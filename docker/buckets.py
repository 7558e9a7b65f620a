"""Create the stack's buckets, then ask the S3 server to notify the webhook of uploads to `rasters`.

The arguments are those of `python -m services.webhook.notify rasters`. Running this program again changes nothing.
"""

import os
import sys

import boto3
from botocore.exceptions import ClientError

client = boto3.client("s3")
for bucket in ("rasters", "datasets"):
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
    print(f"bucket {bucket}", flush=True)
os.execv(sys.executable, [sys.executable, "-m", "services.webhook.notify", "rasters", *sys.argv[1:]])
