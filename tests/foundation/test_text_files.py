"""Text is UTF-8 whoever wrote it and wherever it is read; YAML and JSON are bounded."""

import codecs
import os
import subprocess
import sys
import time

import pytest

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.foundation.text_files import parse_json, parse_yaml, read_text, read_yaml


@pytest.mark.parametrize("text", ["", "1 2 3\n", "größe: 1\n", "данные\n", "\ufeffinner"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, text):
    for mark in (b"", codecs.BOM_UTF8):
        if text.startswith("\ufeff") and not mark:
            continue
        (tmp_path / "a.txt").write_bytes(mark + text.encode())
        assert read_text(tmp_path / "a.txt") == text


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("1 2 3\n".encode("utf-16"), "UTF-16, by its byte order mark"),
        (codecs.BOM_UTF16_BE + "1 2 3\n".encode("utf-16-be"), "UTF-16, by its byte order mark"),
        ("1 2 3\n".encode("utf-32"), "UTF-32, by its byte order mark"),
        ("1 2 3\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("a\nb größer\n".encode("latin-1"), r"8-bit.*Latin-1 \(byte 0xf6, line 2\)"),
        ("данные".encode("cp1251"), "8-bit encoding"),
        (b"\x89PNG\r\n\x1a\n\0\0", "8-bit encoding"),
    ],
)
def test_other_encodings_are_named(tmp_path, content, named):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UnreadableFile, match=rf"a\.txt cannot be read as text.*{named}.*save it"):
        read_text(tmp_path / "a.txt")


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r"none\.txt does not exist"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1), ("1E5", 100000.0), ("+2e3", 2000.0), ("-1e+2", -100.0), ("1.e2", 100.0),
        (".5e1", 5.0), ("1.5e-3", 0.0015), ("10", 10), ("-3", -3), ("0.1", 0.1),
        (".inf", float("inf")),
        ("e1", "e1"), ("1e", "1e"), ("1e-1x", "1e-1x"), ("'1e-1'", "1e-1"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_yaml_numbers_are_numbers_and_words_are_words(text, value):
    (found,) = parse_yaml(f"a: [{text}]", "here")["a"]
    assert found == value
    assert type(found) is type(value)


def bomb(levels, each, merge=False):
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x, x]"]
    for level in range(levels):
        parts = ", ".join([f"*a{level}"] * each)
        lines.append(
            f"a{level + 1}: &a{level + 1} {{<<: [{parts}]}}" if merge else
            f"a{level + 1}: &a{level + 1} [{parts}]"
        )  # fmt: skip
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(9, 9), bomb(30, 2), bomb(9, 9, merge=True), "a: &a [*a]", "a: &a {b: *a}",
        "[" * 100_000, "{a: " * 5_000, "- " * 3_000, "a: " + "9" * 100_000, "a: 2024-99-99",
        "a: !!bool x", "a: !!timestamp x", "a: !!int x", "a: !!python/object:os.system x", "a: \0",
        "a: b: c", "? [1]\n: 2", "--- 1\n--- 2\n",
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_read_is_one_small_error_at_once(text):
    begun = time.process_time()
    with pytest.raises(UnreadableFile, match="cannot read here, no valid YAML") as caught:
        parse_yaml(text, "here")
    assert time.process_time() - begun < 2
    assert len(str(caught.value)) < 1000


def test_honest_aliases_are_read():
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]", "here")["b"] == [[1, 2], [1, 2]]
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}", "here")["b"] == {"x": 1, "y": 2}
    assert parse_yaml("", "here") is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "nul", "9" * 100_000, ""])
def test_json_that_cannot_be_read_is_one_small_error(text):
    with pytest.raises(UnreadableFile, match="cannot read here, no valid JSON") as caught:
        parse_json(text, "here")
    assert len(str(caught.value)) < 1000


def test_declarations_are_utf_8_in_any_locale(tmp_path):
    (tmp_path / "a.yaml").write_text("sequences: [данные]\n", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from mut3r_analysis.foundation.text_files import "
        "read_yaml; print(ascii(read_yaml(Path(sys.argv[1]))))"
    )
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.yaml"],
        capture_output=True, text=True, check=True, env={**os.environ, **locale},
    )  # fmt: skip
    assert found.stdout.strip() == ascii(read_yaml(tmp_path / "a.yaml"))
