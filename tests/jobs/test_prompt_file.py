"""Prompt files: what their rows say, and every problem told at once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from magnet_cli.errors import UsageError
from magnet_cli.jobs.prompt_file import LONGEST_FIELD, Problems, Row, read_rows
from magnet_cli.options.sampling_overrides import Overrides


def read(folder: Path, name: str, content: str | bytes, kind: str | None = None) -> list[Row]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    problems = Problems(str(path))
    rows = read_rows(str(path), kind, problems)
    problems.check()
    return rows


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(UsageError) as refused:
        read(folder, name, content)
    return str(refused.value)


# -- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_prompt_a_line_with_comments(tmp_path: Path, end: str) -> None:
    text = end.join(["# a comment", "disco beat", "", "  rain # not a comment ", "\u2028line separator\u2028inside"])
    rows = [Row(2, "disco beat"), Row(4, "rain # not a comment"), Row(5, "line separator\u2028inside")]
    assert read(tmp_path, "p.txt", text) == rows
    assert read(tmp_path, "p.TXT", b"\xef\xbb\xbf" + text.encode()) == rows  # the mark that Windows puts first


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "holds no prompts"),
        (b"# only a comment\n\n", "holds no prompts"),
        (b"one\ntwo\nth\xffree\n", "not valid UTF-8 on line 3"),
        ("disco".encode("utf-16"), "not valid UTF-8 on line 1"),
        ("disco\nbeat".encode("utf-16-le"), "a NUL on line 1"),
    ],
)
@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.jsonl"])
def test_what_is_no_text_or_empty(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    if content.startswith(b"#") and name != "p.txt":
        content = b"prompt\n" if name == "p.csv" else b"\n \n"
    assert part in refusal(tmp_path, name, content)


@pytest.mark.parametrize(
    ("file", "kind", "part"),
    [
        ("missing.txt", None, "cannot read"),
        ("p.doc", None, "neither .txt, .csv nor .jsonl"),
        ("p", None, "neither"),
        ("p.txt", "yaml", "unknown format 'yaml'"),
        (".", "txt", "cannot read"),
        ("~nobody-of-this-name/p.txt", None, "cannot read"),
        ("nul\0.txt", None, "cannot read"),
    ],
)
def test_files_that_cannot_be_read(file: str, kind: str | None, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        read_rows(file, kind, Problems(file))


# -- CSV --------------------------------------------------------------------------------------------------------------


def test_columns_are_named_as_the_options_are(tmp_path: Path) -> None:
    text = (
        "Prompt, top-p,TOP_K,greedy,steps,output,seed,variations,min-guidance,no-anneal\r\n"
        '"rain, then\nwind",0.5,,yes,"4,2,2,2",drums/kick,+7,3,-1.5e0,0\r\n'
        "\r\n"
        "x\r\n"
    )
    overrides = Overrides(top_p=0.5, greedy=True, steps="4,2,2,2", min_guidance=-1.5, no_anneal=False)
    assert read(tmp_path, "p.csv", text) == [
        Row(3, "rain, then\nwind", 7, 3, "drums/kick", overrides),
        Row(5, "x"),
    ]


def test_every_problem_of_a_csv_is_told(tmp_path: Path) -> None:
    text = "prompt,seed,temperature,greedy\na,1.5,hot,perhaps\n,1,,\nb,1,2,true,5\nc,1_0,1.2.3,\nfine,1,1,1\n"
    told = refusal(tmp_path, "p.csv", text).splitlines()
    assert told[0].endswith("p.csv has 7 problems:")
    assert told[1:-1] == [
        "  line 2: seed is '1.5', not a whole number",
        "  line 2: temperature is 'hot', not a number",
        "  line 2: greedy is 'perhaps', not true or false",
        "  line 3: there is no prompt",
        "  line 4: 5 cells, but the header names 4 columns",
        "  line 5: seed is '1_0', not a whole number",
        "  line 5: temperature is '1.2.3', not a number",
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("prompt,wat\na,1\n", "line 1: unknown column 'wat'; there are prompt, seed"),
        ("prompt,seed,SEED\na,1,2\n", "line 1: two columns are named 'seed'"),
        ("prompts\na\n", "line 1: no column is named prompt"),
        ("prompt\n'a'\n\"b\"c\n", "line 3: not valid CSV"),
        ('prompt\na\n"b\n', "not valid CSV: unexpected end of data"),
        ("prompt\n" + "a" * (LONGEST_FIELD + 1), "not valid CSV: field larger than field limit"),
        ("w" * 500 + "\na\n", "unknown column 'wwww"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, part: str) -> None:
    told = refusal(tmp_path, "p.csv", text)
    assert part in told
    assert len(told) < 600


def test_a_hundred_problems_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    told = refusal(tmp_path, "p.csv", "prompt,seed\n" + "a,x\n" * 1234)
    assert "has 1,234 problems" in told
    assert told.count("line ") == 100
    assert "and 1,134 more" in told


# -- JSON lines -------------------------------------------------------------------------------------------------------


def test_json_lines(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"prompt": "a\nb \u202e🎵", "seed": 2**63, "steps": [4, 2, 2, 2], "top-p": 1, "greedy": False, "output": None},
        {"prompt": "c", "steps": "1,2,3,4", "spans": "stride1"},
    ]
    assert read(tmp_path, "p.jsonl", "\n\n".join(map(json.dumps, lines))) == [
        Row(1, "a\nb \u202e🎵", 2**63, overrides=Overrides(steps="4,2,2,2", top_p=1.0, greedy=False)),
        Row(3, "c", overrides=Overrides(steps="1,2,3,4", spans="stride1")),
    ]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('["a"]', "not a JSON object"),
        ('"a"', "not a JSON object"),
        ("{", "not valid JSON"),
        ('{"prompt": "a", "prompt": "b"}', "two columns are named 'prompt'"),
        ('{"prompt": "a", "top-p": 1, "top_p": 0.5}', "two columns are named 'top_p'"),
        ('{"prompt": "a", "wat": 1}', "unknown column 'wat'"),
        ('{"seed": 1}', "no column is named prompt"),
        ('{"prompt": null}', "there is no prompt"),
        ('{"prompt": 5}', "prompt is 5, not text"),
        ('{"prompt": "a", "seed": 1.0}', "seed is 1.0, not a whole number"),
        ('{"prompt": "a", "seed": true}', "seed is True, not a whole number"),
        ('{"prompt": "a", "seed": "x"}', "seed is 'x', not a whole number"),
        ('{"prompt": "a", "temperature": NaN}', "temperature is nan, not a number"),
        ('{"prompt": "a", "temperature": 1e999}', "temperature is inf, not a number"),
        ('{"prompt": "a", "temperature": ' + "9" * 400 + "}", "not a number"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"prompt": "a", "greedy": 1}', "greedy is 1, not true or false"),
        ('{"prompt": "a", "steps": [1, true]}', "steps is [1, True], not whole numbers"),
        ('{"prompt": "a", "steps": 5}', "steps is 5, not whole numbers"),
        ('{"prompt": {"prompt": "a"}}', "not text"),
        ("[" * 100_000, "not valid JSON"),
        ('{"prompt": ' + "[" * 900 + "]" * 900 + "}", "not text"),
    ],
)
def test_bad_json_lines(tmp_path: Path, line: str, part: str) -> None:
    told = refusal(tmp_path, "p.jsonl", '{"prompt": "fine"}\n' + line)
    assert "  line 2: " in told
    assert part in told
    assert len(told) < 1000


# -- anything ---------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "prompt",
        "seed",
        "steps",
        ",",
        '"',
        "\n",
        "\r\n",
        "{",
        "}",
        ":",
        "[",
        "]",
        "1e5",
        "-7",
        "true",
        "null",
        "\ufeff",
        "é",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=60) | st.lists(PIECES, max_size=30).map("".join).map(str.encode),
    name=st.sampled_from(["p.txt", "p.csv", "p.jsonl"]),
)
@example(b'{"prompt": "\\ud800"}', "p.jsonl")
def test_any_file_gives_rows_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    try:
        rows = read(tmp_path_factory.getbasetemp(), name, content)
    except UsageError:
        return
    assert rows
    assert all(isinstance(row.prompt, str) for row in rows)


def test_a_file_of_a_hundred_thousand_unknown_columns_is_refused_at_once(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(100_000)]
    header = ",".join([*names, "c7", "c7"])
    row = json.dumps(dict.fromkeys(names, 1))
    for name, content in (("p.csv", f"{header}\n1,2\n"), ("p.jsonl", f"{row}\n{row}\n")):
        started = time.process_time()
        told = refusal(tmp_path, name, content)
        assert time.process_time() - started < 2
        assert "unknown column 'c0'; there are prompt, seed" in told
        assert len(told) < 100_000
    assert "99,982 more unknown columns" in refusal(tmp_path, "p.csv", f"{header}\n1,2\n")
