"""Is that a licence?

An SPDX expression (spdx.org/licenses; ISO/IEC 5962), brought into its normal form by `license-expression`: "GPL-3.0"
becomes "GPL-3.0-only". A licence of one's own is `LicenseRef-<name>`, as SPDX has it.
"""

from __future__ import annotations

import re

from server.errors import StoreError

_OWN = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")


def checked(text: str) -> str:
    """The expression in its normal form, "" for none; StoreError when it is no SPDX expression."""
    text = text.strip()
    if not text or _OWN.fullmatch(text):
        return text
    try:
        from license_expression import ExpressionError, get_spdx_licensing
    except ImportError as error:
        raise StoreError('licences are checked by license-expression: pip install "winnow-edge[data]"') from error
    licensing = get_spdx_licensing()
    try:
        parsed = licensing.parse(text, strict=True)
    except ExpressionError as error:
        raise _wrong(text, str(error)) from None
    if unknown := [key for key in licensing.unknown_license_keys(parsed) if not _OWN.fullmatch(key)]:
        raise _wrong(text, f"{', '.join(unknown)}: not of SPDX's list")
    return str(parsed)


def _wrong(text: str, why: str) -> StoreError:
    return StoreError(
        f"licence {text!r}: {why.rstrip('.')}: expected an SPDX expression such as CC-BY-4.0, "
        '"MIT OR Apache-2.0", or LicenseRef-ours for one of your own'
    )
