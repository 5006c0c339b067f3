"""Text, YAML and JSON as people give them: UTF-8 with or without its mark, of bounded size.

A file that is none of this is one error that says what it is instead. A short file cannot ask for
much memory or time: YAML aliases count as what they stand for, and nesting ends at a depth.
"""

import codecs
import json
import re
from pathlib import Path
from typing import Any

import yaml

from mut3r_analysis.errors import MissingFile, UnreadableFile

DEEPEST = 100
"""Levels of nesting that a declaration may have."""
MOST_VALUES = 100_000
"""Values that a YAML text may stand for, its aliases spelled out."""

# The mark of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip


def read_bytes(path: Path) -> bytes:
    """Read a file, or raise `MissingFile` or `UnreadableFile`."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFile(f"{path} does not exist") from error
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error}") from error


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, without its byte order mark if it has one.

    Raises
    ------
    MissingFile, UnreadableFile
        No file, or one in another encoding, which the message names as far as it shows.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"an 8-bit encoding such as Latin-1 (byte {content[error.start]:#x}, line {line})"
    else:
        if "\0" not in text:
            return text
        found = "UTF-16 without a byte order mark, or no text at all (it holds zero bytes)"
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    found = f"{marked}, by its byte order mark" if marked else found
    raise UnreadableFile(f"{path} cannot be read as text in UTF-8: it is in {found}; save it again")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 in plain values, with the numbers of YAML 1.2, such as ``1e-1``.

    Nesting is counted while the text is scanned, which is slower than linear in its depth.
    """

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """Begin ``[`` or ``{``."""
        _refuse_depth(self.flow_level)
        super().fetch_flow_collection_start(kind)

    def add_indent(self, column: int) -> bool:
        """Begin a block."""
        _refuse_depth(len(self.indents))
        return super().add_indent(column)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> Any:
    """Read the one document of a YAML file, or raise as `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML text as plain values.

    Raises
    ------
    UnreadableFile
        Naming `where` it stands: not YAML, or more than `MOST_VALUES` values or `DEEPEST` levels.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}, 1) > MOST_VALUES:
            raise UnreadableFile(f"its aliases stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    # Values are made by rules of many kinds (dates, numbers, tags), which raise what they stumble
    # over.
    except Exception as error:
        raise UnreadableFile(f"cannot read {where}, no valid YAML: {_reason(error)}") from None
    finally:
        if loader is not None:
            loader.dispose()


def parse_json(text: str | bytes, where: str) -> Any:
    """Read JSON text, or raise `UnreadableFile` naming `where` it stands."""
    try:
        return json.loads(text.lstrip("\ufeff") if isinstance(text, str) else text)
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"cannot read {where}, no valid JSON: {_reason(error)}") from None


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Count the values below a node, those of aliases wherever they stand."""
    _refuse_depth(depth)
    if id(node) not in known:
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_count(part, known, depth + 1) for part in parts)
    return known[id(node)]


def _refuse_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise RecursionError


def _reason(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)
