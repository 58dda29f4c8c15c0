"""How is an S3 spoken to?

Bytes go through obstore (Rust, no GIL): three to five times as many requests a second as botocore makes, for a fifth of
the processor (ADR 0033). Credentials are found by botocore, in all the places where AWS's own tools look, and renewed;
it also does what obstore cannot: versions, and rules of a bucket.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from server.config import BUCKET_URL
from server.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential, S3Store

CONNECT_S = 5.0
SILENT_S = 20.0  # less than others wait for the catalogue (BUSY_S), which is held while bodies are put
REQUEST_S = 120.0  # of one that goes on all the while: a large body that is read
TRIES_MORE = 2  # of what may be tried again; whoever asked tries on, with patience of his own
TRIES_S = 20.0
CREDENTIALS_S = 300.0  # before botocore is asked again, which renews them some minutes before they end
ANY_REGION = "us-east-1"  # what servers other than AWS take, where nobody says one

ADVICE = {
    "AccessDenied": "grant these credentials what docs/blobs.md lists",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set [store] s3_region, or AWS_REGION",
    "ExpiredToken": "renew the credentials: those of a role renew themselves",
    "InvalidAccessKeyId": "mend the credentials (AWS_ACCESS_KEY_ID, ~/.aws/credentials, or the role of this machine)",
    "NoSuchBucket": "make the bucket, or mend [store] blobs",
    "PermanentRedirect": "the bucket is in another region: set [store] s3_region, or AWS_REGION",
    "RequestTimeTooSkewed": "set the clock of this machine: it is off by more than S3 allows",
    "SignatureDoesNotMatch": "mend the secret key (AWS_SECRET_ACCESS_KEY, ~/.aws/credentials)",
    "SlowDown": "it asks for fewer requests; what failed is tried again",
}
BY_STATUS = {
    "301": "PermanentRedirect",
    "403": "AccessDenied",
    "503": "SlowDown",
}  # of HEAD, which is answered in a word
PASSING = ("", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown")  # "": nobody answered
UNREACHABLE = "is it up, and [store] s3_endpoint right? What failed is tried again"

_CODE = re.compile(r"<Code>(\w+)</Code>")
REDIRECT = "redirect without LOCATION"  # what obstore says of 301

_STATUS = re.compile(r"status code: (\d{3})")
_MESSAGE = re.compile(r"<Message>([^<]{1,200})")


@dataclass(frozen=True)
class Address:
    """Which bucket, and where in it."""

    bucket: str
    prefix: str = ""  # without slashes at its ends
    endpoint: str = ""  # https://host:port of another server than AWS's
    region: str = ""  # empty: as AWS's tools find it

    @classmethod
    def of(cls, url: str, *, endpoint: str = "", region: str = "") -> Address:
        """Of s3://bucket/prefix; StoreError when it is none.

        >>> Address.of("s3://fleet/blobs/")
        Address(bucket='fleet', prefix='blobs', endpoint='', region='')
        """
        found = BUCKET_URL.fullmatch(url)
        if found is None:
            raise StoreError(f"{url}: expected s3://bucket/prefix")
        return cls(found[1], found[2].strip("/"), endpoint, region)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, sha256: str) -> str:
        """Of a blob: fanned out, as some servers keep a folder for each part of a key."""
        return f"{self.under}{sha256[:2]}/{sha256}"

    @property
    def under(self) -> str:
        """What every key begins with."""
        return f"{self.prefix}/" if self.prefix else ""


class S3:
    """One bucket's clients. Nothing is asked of the server yet."""

    def __init__(self, address: Address) -> None:
        """StoreError when the extra `s3` is missing, or no credentials are to be found."""
        try:
            import botocore.session
            import obstore  # noqa: F401 - of which `objects` makes one
        except ImportError as error:
            raise StoreError(
                f"{address}: package {error.name!r} is missing: pip install 'winnow-edge[server,s3]'"
            ) from error
        self.address = address
        logging.getLogger("botocore").setLevel(logging.WARNING)  # it says at every start where it found credentials
        self._session = botocore.session.Session()
        with self.faults():
            self._credentials = self._session.get_credentials()
            self._region = address.region or self._session.get_config_variable("region") or ANY_REGION
        if self._credentials is None:
            raise StoreError(
                f"{address}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to "
                "~/.aws/credentials, or give this machine a role"
            )

    @cached_property
    def objects(self) -> S3Store:
        """For obstore's functions: objects by key."""
        from obstore.store import S3Store

        options: ClientConfig = {
            "allow_http": True,  # whoever writes http:// means it; AWS's own are https
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "read_timeout": timedelta(seconds=SILENT_S),
            "timeout": timedelta(seconds=REQUEST_S),
        }
        where: S3Config = {"region": self._region, "checksum_algorithm": "sha256"}  # what changed on the way is refused
        if self.address.endpoint:
            where["endpoint"] = self.address.endpoint
        return S3Store(
            self.address.bucket,
            config=where,
            credential_provider=self._granted,
            client_options=options,
            retry_config={"max_retries": TRIES_MORE, "retry_timeout": timedelta(seconds=TRIES_S)},
        )

    @cached_property
    def administration(self) -> Any:
        """Botocore's client: versions, and rules of the bucket."""
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=SILENT_S,
            retries={"mode": "standard", "total_max_attempts": 1 + TRIES_MORE},
            s3={"addressing_style": "path"} if self.address.endpoint else {},
            request_checksum_calculation="when_required",  # what some servers cannot read is not sent to them
            response_checksum_validation="when_required",
        )
        endpoint = self.address.endpoint or None
        with self.faults():
            return self._session.create_client("s3", region_name=self._region, endpoint_url=endpoint, config=config)

    @contextmanager
    def faults(self, key: str = "") -> Iterator[None]:
        """Whatever goes wrong with the bucket, or with an object in it, is a StoreError that says what to do."""
        from botocore.exceptions import BotoCoreError, ClientError
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError, BotoCoreError, ClientError) as error:
            place = f"{self.address}" + (f": {key}" if key else "")
            raise StoreError(f"{place}: {explained(error)}") from error

    def _granted(self) -> S3Credential:
        """What obstore signs with; asked again when it is about to end."""
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + timedelta(seconds=CREDENTIALS_S),
        }


def code_of(error: BaseException) -> str:
    """S3's word for what went wrong, or else the status of its answer; "" when no S3 answered.

    >>> code_of(ValueError("status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>"))
    'NoSuchBucket'
    """
    said = getattr(error, "response", {}).get("Error", {}).get("Code", "")  # botocore
    found = _CODE.search(str(error))
    word = said or (found[1] if found else "") or status_of(error)
    return BY_STATUS.get(word, word)


def status_of(error: BaseException) -> str:
    """Of the answer that obstore's error tells of; "" when there was none.

    >>> status_of(ValueError("Server returned non-2xx status code: 412 Precondition Failed"))
    '412'
    """
    found = _STATUS.search(str(error))
    return "301" if REDIRECT in str(error) else found[1] if found else ""


def passes(error: BaseException) -> bool:
    """Whether it is nothing that an operator has to mend.

    >>> [passes(ValueError(said)) for said in ("error sending request", "status code: 502", "status code: 403")]
    [True, True, False]
    """
    code = code_of(error)
    return code in PASSING or code.startswith("5")


def explained(error: BaseException) -> str:
    """In a line: what went wrong, and what to do."""
    code, text = code_of(error), str(error)
    if not code:
        return f"cannot be reached: {_first_line(text)}: {UNREACHABLE}"
    message = _MESSAGE.search(text)
    return f"{code}: {message[1] if message else _first_line(text)}" + (f": {ADVICE[code]}" if code in ADVICE else "")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
