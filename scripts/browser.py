"""Where is a browser for the tests of the pages? `python3 scripts/browser.py`, a step of `make test`.

Chromium of the system is taken as it is; else Debian's is installed, where that needs no password; else Playwright
downloads one of its own. Without any the tests of the pages are skipped, and say so.
"""

from __future__ import annotations

import shutil

import debian
from step import ROOT, StepFailed, ask, note, take

NAMES = ("chromium", "chromium-browser", "google-chrome")
PLAYWRIGHT = ROOT / ".venv" / "bin" / "playwright"


def main() -> None:
    """Make sure that there is one, if that can be."""
    take("browser", get_browser)


def get_browser() -> str:
    """One line on what there is."""
    if found := in_system():
        return found
    prefix = debian.root_prefix() if debian.present() else None
    if prefix is not None:
        note("browser", "installing chromium")
        try:
            debian.install("chromium", prefix)
        except StepFailed as error:
            note("browser", str(error))
        if found := in_system():
            return found
    note("browser", "downloading Playwright's")
    code, said = ask([PLAYWRIGHT, "install", "chromium"])
    return "Playwright's chromium" if code == 0 else f"none ({said.strip().splitlines()[-1:]}): its tests are skipped"


def in_system() -> str | None:
    """The path of one that starts."""
    return next((path for name in NAMES if (path := shutil.which(name)) and ask([path, "--version"])[0] == 0), None)


if __name__ == "__main__":
    main()
