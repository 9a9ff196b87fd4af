"""Broken inputs out of valid ones: bytes changed, and values changed inside their structure."""

import io
import json
import random
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HUGE = (0, 1, 2**7, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**62, 2**63, 2**64 - 1)
PIECES = (
    *(b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\n", b"\r\n", b"\t", b'"', b"'", b"\\"),
    *(b"\\ud800", b"\xed\xa0\x80", b"{", b"}", b"[", b"]", b":", b",", b"- ", b"? ", b"&a ", b"*a"),
    *(b"<<: ", b"%YAML 9.9\n---\n", b"---\n", b"...\n", b"nan", b".nan", b".inf", b"1e999", b"-0"),
    *(b"9" * 5000, b"a" * 70_000, b"[" * 3000, b"{" * 3000, b"\xf0\x9f\x90\xa0", b"../", b"/etc/"),
    *(b"!!python/object/apply:os.system [id] ", b"!!timestamp 2026-99-99", b"!!binary x"),
    *(b"!!int x", b"!!float x", b"!!set {a}", b"!!omap [a]", b"0o99", b"0x", b"1_0", b"2026-13-01"),
)
# What a value may be replaced by; None in YAML and JSON is written as it is.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.5, 1e308, 5e-324),
    *(float("nan"), float("inf"), float("-inf")),
    *("", " ", "\0", "\ud800", "\u2028", "../../etc/passwd", "/etc/passwd", "x" * 20_000, "🐠"),
    *("\x1b[31m", "a\nb", "%s%n", "{0}", "C:\\x", "~", "nan", "0", "file:/", "hf:a/b@c"),
    *([], {}, [[]], [None], [1, "a", {}], {"": ""}, {"a": {"b": {}}}, ["a"] * 300, [2**62] * 3),
)
KEYS = ("", "id", "0", "a.b", "\ud800", "__class__", "auto_map", "sha256", "source", "x" * 5000)


def mutate(reader: str, content: bytes, draw: random.Random) -> bytes:
    """A broken version of an input of a reader."""
    if reader in STRUCTURED and draw.random() < 0.6:
        try:
            return STRUCTURED[reader](content, draw)
        except Exception:  # what is broken already has no structure to change
            pass
    return _bytes_changed(content, draw)


# Bytes


def _bytes_changed(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        # Most of what decides lies at the front, in a table's case at the end.
        reach = draw.choice((8, 64, 512, len(data) + 1))
        at = min(draw.randrange(reach), len(data))
        if draw.random() < 0.2:
            at = len(data) - at
        _edit(data, at, draw)
    return bytes(data)


def _edit(data: bytearray, at: int, draw: random.Random) -> None:
    kind = draw.randrange(6)
    if kind == 0:
        del data[at:]
    elif kind == 1:
        data[at:at] = draw.choice(PIECES)
    elif kind == 2:
        del data[at : at + draw.choice((1, 2, 8, 100))]
    elif kind == 3:
        size, code = draw.choice(((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q"), (8, ">Q")))
        value = draw.choice(HUGE) % 2 ** (8 * size)
        if at + size <= len(data):
            data[at : at + size] = struct.pack(code, value)
    elif kind == 4:
        data[at:at] = data[at : at + draw.choice((1, 16, 300))]
    elif at < len(data):
        data[at] ^= 1 << draw.randrange(8)


# Values in a structure


def _replaced(value: Any, draw: random.Random) -> Any:
    """The structure with one value replaced, one taken away, or one added, at any depth."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys or draw.random() < 0.05:
        return draw.choice(VALUES)
    copy = value.copy()
    key = draw.choice(keys)
    inner = copy[key]
    if isinstance(inner, dict | list) and draw.random() < 0.8:
        copy[key] = _replaced(inner, draw)
    elif (kind := draw.random()) < 0.7:
        copy[key] = draw.choice(VALUES)
    elif kind < 0.85:
        del copy[key]
    elif isinstance(copy, dict):
        copy[draw.choice(KEYS)] = draw.choice(VALUES)
    else:
        copy.insert(key, draw.choice((*VALUES, *copy)))
    return copy


def _json(value: Any, draw: random.Random) -> bytes:
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    if draw.random() < 0.1 and ": " in text:  # a key twice
        text = text.replace("{", '{"id": 1, "id": 2, ', 1)
    return text.encode("utf-8", "surrogatepass")


def _yaml(content: bytes, draw: random.Random) -> bytes:
    values = yaml.safe_load(content)
    for _ in range(draw.choice((1, 1, 2))):
        values = _replaced(values, draw) if isinstance(values, dict | list) else values
    if draw.random() < 0.5:
        return _json(values, draw)  # which YAML reads too
    return yaml.dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")


def _lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = _json(_replaced(json.loads(lines[at]), draw), draw)
    return b"\n".join(lines)


def _named_file(content: bytes, draw: random.Random) -> bytes:
    name, _, inner = content.partition(b"\n")
    if name.endswith(b".json"):
        value = json.loads(inner)
        for _ in range(draw.choice((1, 1, 3))):
            value = _replaced(value, draw) if isinstance(value, dict | list) else value
        return name + b"\n" + _json(value, draw)
    if name.endswith(b".safetensors"):
        return name + b"\n" + _safetensors(inner, draw)
    if name.endswith(b".npy"):
        return name + b"\n" + _npy(inner, draw)
    return name + b"\n" + _bytes_changed(inner, draw)


def _safetensors(content: bytes, draw: random.Random) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    header = _json(_replaced(json.loads(content[8 : 8 + length]), draw), draw)
    length = draw.choice((len(header), len(header), len(header), *HUGE))
    return struct.pack("<Q", length % 2**64) + header + content[8 + len(header) :]


def _npy(content: bytes, draw: random.Random) -> bytes:
    header = {
        "descr": draw.choice(("<i8", "<f4", "|O", "<U1000000000", "|V0", ">i2", [["a", "<i4"]])),
        "fortran_order": draw.choice((False, True, 1)),
        "shape": draw.choice(((3,), (2**62,), (2**62, 2**62), (-1,), (), (0,), (3, 3), (1.5,))),
    }
    text = draw.choice((repr(header), "{" * 200, "__import__('os')", repr(header)[:-4], "9" * 300))
    line = text.encode() + b"\n"
    size = draw.choice((len(line), len(line), 0, 65535))
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + line + content[128:]


# Tables


def _table(content: bytes, draw: random.Random) -> bytes:
    """A table in which some column is of another type, null, doubled or gone."""
    whole = content.startswith(b"PAR1")
    table = pq.read_table(io.BytesIO(content)) if whole else pa.ipc.open_stream(content).read_all()
    table.validate(full=True)  # else to change a broken one could end this process
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(table.num_columns) if table.num_columns else 0
        kind = draw.randrange(5)
        if kind == 0 and table.num_columns:
            table = table.remove_column(at)
        elif kind == 1 and table.num_columns:
            table = table.append_column(table.schema.field(at), table.column(at))
        elif table.num_columns:
            field, column = _column(table.num_rows, draw)
            table = table.set_column(at, field.with_name(table.schema.names[at]), column)
    if draw.random() < 0.3:
        table = table.replace_schema_metadata(
            {
                "parameters": draw.choice(("", "-1", "9" * 5000, "1e3", "1")),
                "mlp_parameters": draw.choice(("x", "1")),
                "pandas": draw.choice(("{", "{}", '{"index_columns": [9]}')),
            }
        )
    file = io.BytesIO()
    try:
        if whole:
            pq.write_table(table, file)
        else:
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    except (pa.ArrowException, ValueError):  # parquet has no such type
        return content[: draw.randrange(len(content))]
    return file.getvalue()


def _column(rows: int, draw: random.Random) -> tuple[pa.Field, Any]:
    texts = pa.array([b"\xff\xfe"] * rows, pa.binary()).view(pa.string())  # not UTF-8
    choices = (
        texts,
        pa.array([None] * rows, pa.string()),
        pa.array([[None, "a"]] * rows),
        pa.array([["a", "b"]] * rows),
        pa.array([["\0", "\ud7ff"]] * rows),
        pa.array([{"label": ["A"], "text": None}] * rows),
        pa.array([{"label": [["A"]], "text": [1]}] * rows),
        pa.array([float("nan")] * rows),
        pa.array([2**63 - 1] * rows, pa.timestamp("s")),
        pa.array([2**62] * rows, pa.duration("s")),
        pa.array([2**31 - 1] * rows, pa.int32()).view(pa.date32()),
        pa.array([Decimal("1e70")] * rows, pa.decimal256(76, 0)),
        pa.array(["a"] * rows).dictionary_encode(),
        pa.array([b"x"] * rows),
        pa.array([[("a", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
        pa.array([2**64 - 1] * rows, pa.uint64()),
        pa.nulls(rows),
    )
    column = draw.choice(choices)
    names = (b"arrow.py_extension_type", b"arrow.json", b"arrow.fixed_shape_tensor", b"no.such")
    metadata = None
    if draw.random() < 0.2:
        metadata = {
            b"ARROW:extension:name": draw.choice(names),
            b"ARROW:extension:metadata": draw.choice((b"", b"{", b"\x80\x04N.")),
        }
    return pa.field("column", column.type, metadata=metadata), column


STRUCTURED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "params": _yaml,
    "controls": _yaml,
    "jsonl": _lines,
    "split": _lines,
    "parquet": _table,
    "arrow": _table,
    "predictions": _table,
    "model": _named_file,
    "record": _named_file,
}
