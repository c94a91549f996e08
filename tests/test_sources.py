"""Docstrings say something, and what they and comments cite of the protocol sheets is there."""

from __future__ import annotations

import ast
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


#: A docstring that begins by sending its reader elsewhere, and says nothing of its own there.
ELSEWHERE = re.compile(r"See (?:the|`[^`]+`)[^;:,.]*(?:`[^`]*`[^;:,.]*)*\.(?:\s|$)")


def test_docstrings_say_what_the_thing_is_or_are_left_out() -> None:
    """Overrides inherit the docstring of what they override: `inspect.getdoc` finds it."""
    found = []
    for room in (*ROOMS, "tests"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    text = ast.get_docstring(node) or ""
                    if ELSEWHERE.match(text):
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert found == []


#: A file of ours by its name, or by the end of its path.
NAMED = re.compile(r"(?<![\w./*-])((?:[\w-]+/)*\w[\w-]*\.(?:py|md))\b")


def test_files_that_documents_and_docstrings_of_modules_name_are_there() -> None:
    texts = {path: path.read_text() for path in (ROOT / "docs").glob("*.md")}
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    for path in sources:
        texts[path] = ast.get_docstring(ast.parse(path.read_text())) or ""
    ends: set[str] = set()
    for path in (*sources, *ROOT.glob("*.*"), *ROOT.glob("docs/**/*"), *ROOT.glob("tests/**/*")):
        parts = path.relative_to(ROOT).parts
        ends.update("/".join(parts[start:]) for start in range(len(parts)))
    missing = [
        f"{path.relative_to(ROOT)} names {name}"
        for path, text in texts.items()
        for name in NAMED.findall(text)
        if name not in ends
    ]
    assert missing == []
