"""Which rules should a bucket have?

None that deletes what is in force: the bytes of a sample may be those of another of a longer retention class, of a
member of a frozen snapshot, or of a model, and a rule of S3's knows none of that. What has had its time is deleted by
the catalogue, which does (ADR 0033). A bucket's own rules clear up behind it: parts of uploads that came to nothing,
and versions that were replaced or deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.errors import StoreError
from server.store.s3 import S3, Address, code_of

NAMED = "winnow-"  # what the names of our rules begin with, before the prefix that they are of
PARTS_DAYS = 1  # of an upload that came to nothing; one that goes on takes minutes
VERSIONS_DAYS = 30
UNREADABLE = ("GLACIER", "DEEP_ARCHIVE")  # classes from which an object has to be asked for hours ahead
NONE_YET = "NoSuchLifecycleConfiguration"

Rule = Mapping[str, Any]
"""As PutBucketLifecycleConfiguration takes it (docs.aws.amazon.com/AmazonS3/latest/API/API_LifecycleRule.html)."""


def wanted(prefix: str, *, versions_days: int = VERSIONS_DAYS) -> list[Rule]:
    """Of a prefix, as in `Address.under`.

    >>> [rule["ID"] for rule in wanted("blobs/")]
    ['winnow-parts:blobs/', 'winnow-versions:blobs/']
    """
    both: dict[str, Any] = {"Status": "Enabled", "Filter": {"Prefix": prefix}}
    return [
        {
            **both,
            "ID": f"{NAMED}parts:{prefix}",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": PARTS_DAYS},
        },
        {
            **both,
            "ID": f"{NAMED}versions:{prefix}",
            "NoncurrentVersionExpiration": {"NoncurrentDays": versions_days},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        },
    ]


def beside(rules: Sequence[Rule], ours: Sequence[Rule]) -> list[Rule]:
    """All that a bucket is to have: whoever else's rules, as they are, and ours."""
    names = {rule["ID"] for rule in ours}
    return [*(rule for rule in rules if rule.get("ID") not in names), *ours]


def dangers(rules: Sequence[Rule], prefix: str) -> list[str]:
    """What rules would do to objects that the catalogue names, in a sentence each.

    >>> dangers([{"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 90}}], "blobs/")
    ['rule tidy deletes objects in force, by Days = 90']
    """
    found = []
    for rule in rules:
        if rule.get("Status") != "Enabled" or not _touches(rule, prefix):
            continue
        name = rule.get("ID", "without a name")
        when = {key: value for key, value in rule.get("Expiration", {}).items() if key in ("Days", "Date")}
        found += [f"rule {name} deletes objects in force, by {key} = {value}" for key, value in when.items()]
        found += [
            f"rule {name} moves objects to {to['StorageClass']}, where they cannot be read"
            for to in rule.get("Transitions", ())
            if to.get("StorageClass") in UNREADABLE
        ]
    return found


def _touches(rule: Rule, prefix: str) -> bool:
    """Whether a rule is of some of our objects, none of which has tags."""
    of = rule.get("Filter", rule)
    every = {**of, **of.get("And", {})}
    if every.get("Tag") or every.get("Tags"):
        return False
    its = str(every.get("Prefix", ""))
    return its.startswith(prefix) or prefix.startswith(its)


class Lifecycle:
    """The rules of one bucket."""

    def __init__(self, address: Address) -> None:
        self._s3 = S3(address)

    def rules(self) -> list[Rule]:
        """Those that are in force; StoreError when they cannot be read."""
        try:
            with self._s3.faults():
                said = self._s3.administration.get_bucket_lifecycle_configuration(Bucket=self._s3.address.bucket)
        except StoreError as error:
            if error.__cause__ is not None and code_of(error.__cause__) == NONE_YET:
                return []
            raise
        return list(said.get("Rules", ()))

    def put(self, rules: Sequence[Rule]) -> None:
        """Have these, and no others."""
        with self._s3.faults():
            self._s3.administration.put_bucket_lifecycle_configuration(
                Bucket=self._s3.address.bucket, LifecycleConfiguration={"Rules": list(rules)}
            )
