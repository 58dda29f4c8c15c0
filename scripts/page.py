"""What do the generated pages have in common?"""

from __future__ import annotations

from typing import Any

NOTE = "<!-- Written by `make docs` from the code: change it there. -->"


def table(head: tuple[str, ...], rows: list[Any]) -> list[str]:
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]
