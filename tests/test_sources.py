"""What docstrings and comments cite of the protocol sheets is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHEET = ROOT / "docs" / "protocol" / "orp.md"
CITATION = re.compile(
    r"\bsheet(?:\s+(?:ORP|orp))?\s+((?:[\dRXFA][\d.]*|to|and|,|;|or|\s|step \d)+)"
)
ROOMS = ("wire", "actors", "config", "tools")


def test_every_citation_of_the_sheet_resolves() -> None:
    text = SHEET.read_text()
    sections = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", text, re.MULTILINE))
    rows = set(re.findall(r"^\| ([RXFA]\d+) \|", text, re.MULTILINE))
    cited = 0
    missing: list[str] = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for match in CITATION.finditer(path.read_text().replace("\n#:", " ")):
                words = match.group(1).replace("step", " step ")
                for word in re.findall(r"(?<!step )\b(?:\d\.\d+|[RXFA]\d+)\b", words):
                    cited += 1
                    if word not in sections and word not in rows:
                        missing.append(f"{path.relative_to(ROOT)} cites {word}")
    assert missing == []
    assert cited > 200
