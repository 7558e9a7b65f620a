"""Rules that send the uploads below a prefix of a bucket into a collection.

The webhook and the sweep start runs of `embed-collection` by these rules. One run takes all uploads below the prefix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from rasterembed.errors import UsageError
from rasterembed.store.layout import check_collection_id, is_pattern, name_of
from rasterembed.store.uploads import KEY_BYTES, RASTER_SUFFIXES, BucketName, check_no_controls, run_parameters

_NOT_FOLDERS = (".txt", ".json", ".geojson", ".parquet", *RASTER_SUFFIXES)
"""Endings with which `rasterembed.collection.discovery.discover` takes an address for a file, and not for a folder."""


class CollectionRule(BaseModel):
    """Uploads below a prefix of a bucket belong to a collection.

    Raises:
        ValidationError: if the bucket, the prefix or the collection has a name that is not allowed.

    Example:
        >>> rule = CollectionRule(bucket="rasters", prefix="2026/", collection="survey-2026")
        >>> rule.scenes
        's3://rasters/2026/'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bucket: BucketName = Field(description="Bucket of the uploads.")
    prefix: str = Field(
        default="", description="Beginning of the keys, a folder that ends with a slash. Empty: the whole bucket."
    )
    collection: str = Field(description="Name of the collection.")

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        if not prefix:
            return prefix
        folder = prefix.removesuffix("/")
        if folder == prefix or folder.startswith("/") or any(part in ("", ".", "..") for part in folder.split("/")):
            raise ValueError("use a folder such as incoming/2026/, with a slash at its end and none at its beginning")
        check_no_controls(prefix, "prefix")
        if len(prefix.encode("utf-8", "surrogatepass")) > KEY_BYTES:
            raise ValueError(f"the prefix is longer than {KEY_BYTES} bytes, the longest key of an object: shorten it")
        if is_pattern(prefix):
            raise ValueError("the prefix must not have * ? or [: use a folder")
        if name_of(folder).lower().endswith(_NOT_FOLDERS):
            raise ValueError(
                f"the folder must not have a name like a file's, with {', '.join(_NOT_FOLDERS)} at its end"
            )
        return prefix

    @field_validator("collection")
    @classmethod
    def _check_collection(cls, collection: str) -> str:
        try:
            return check_collection_id(collection)
        except UsageError as error:
            raise ValueError(str(error)) from error

    @property
    def scenes(self) -> str:
        """Address of the uploads, s3://bucket/prefix. Runs list it."""
        return f"s3://{self.bucket}/{self.prefix}"

    def takes(self, bucket: str, key: str) -> bool:
        """Return whether an object lies below the prefix."""
        return bucket == self.bucket and key.startswith(self.prefix)

    def identity(self, root: str) -> str:
        """Return a tag that all runs of this rule have: the collection, and a digest of the root and the prefix.

        Args:
            root: root of the store of the collection, in its full form.
        """
        digest = hashlib.sha256(json.dumps([root, self.bucket, self.prefix]).encode()).hexdigest()
        return f"collection:{self.collection}:{digest[:16]}"

    def parameters(self, root: str | None, store: str | None) -> dict[str, Any]:
        """Return the parameters of the flow run that embeds the uploads. See `run_parameters`.

        Args:
            root: root of the store for the collection, or None to use the deployment's root.
            store: name of a store block, or None to use the deployment's store block.
        """
        return run_parameters(collection=self.collection, scenes=self.scenes, root=root, store=store)


def rule_for(rules: Iterable[CollectionRule], bucket: str, key: str) -> CollectionRule | None:
    """Return the rule that takes an object, or None. If several rules take it, the one with the longest prefix wins."""
    taking = [rule for rule in rules if rule.takes(bucket, key)]
    return max(taking, key=lambda rule: len(rule.prefix), default=None)


def is_scene(key: str) -> bool:
    """Return whether a run of `embed-collection` finds an object in a listing, by the ending of its key.

    Args:
        key: key of the object, or the whole address of an object or a file.
    """
    return key.lower().endswith(RASTER_SUFFIXES)


def check_rules(rules: Sequence[CollectionRule]) -> Sequence[CollectionRule]:
    """Return the rules if each prefix has only one.

    Raises:
        ValueError: if two rules are about the same prefix.
    """
    seen: dict[str, CollectionRule] = {}
    for rule in rules:
        other = seen.setdefault(rule.scenes, rule)
        if other is not rule:
            raise ValueError(
                f"two rules are about {rule.scenes!r}, for {other.collection!r} and {rule.collection!r}: leave one out"
            )
    return rules


_RULES = TypeAdapter(tuple[CollectionRule, ...])

_FORM = '[{"bucket": "rasters", "prefix": "2026/", "collection": "survey-2026"}]'


def read_rules(text: str) -> tuple[CollectionRule, ...]:
    """Read rules from JSON: a list with an object for each rule. An empty text has no rules.

    Raises:
        ValueError: if the text is not such a list. The error names the first fault in one line.

    Example:
        >>> read_rules('[{"bucket": "rasters", "prefix": "2026/", "collection": "survey-2026"}]')[0].collection
        'survey-2026'
    """
    if not text.strip():
        return ()
    try:
        rules = _RULES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise ValueError(f"{reason.replace('Value error, ', '')}; the form is {_FORM}") from error
    check_rules(rules)
    return rules
