"""Makes the stack's buckets, then has uploads to `rasters` announced as `python -m services.notify rasters …` does.

Harmless when repeated. The arguments are those of `services.notify`.
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
os.execv(sys.executable, [sys.executable, "-m", "services.notify", "rasters", *sys.argv[1:]])
