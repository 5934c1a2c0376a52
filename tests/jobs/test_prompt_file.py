"""Prompt files: what their rows say, and every problem told at once."""

from __future__ import annotations

import codecs
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from magnet_cli.errors import UsageError
from magnet_cli.jobs.prompt_file import LONGEST_FIELD, Problems, PromptFile, Row, read_prompt_file
from magnet_cli.options.sampling_overrides import Overrides


def read_file(folder: Path, name: str, content: str | bytes, kind: str | None = None) -> PromptFile:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    problems = Problems(str(path))
    found = read_prompt_file(str(path), kind, problems)
    problems.check()
    return found


def read(folder: Path, name: str, content: str | bytes, kind: str | None = None) -> list[Row]:
    return read_file(folder, name, content, kind).rows


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
        (b"one\ntwo\nth\x81ree\n", "not valid UTF-8 on line 3, nor Windows-1252"),
        (codecs.BOM_UTF16_LE + b"odd", "not valid UTF-16 on line 1"),
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
        ("p.doc", None, "neither .txt, .csv, .tsv nor .jsonl"),
        ("p", None, "neither"),
        ("p.XLSX", None, "Save it as CSV"),
        ("p.txt", "yaml", "unknown format 'yaml'"),
        (".", "txt", "cannot read"),
        ("~nobody-of-this-name/p.txt", None, "cannot read"),
        ("nul\0.txt", None, "cannot read"),
    ],
)
def test_files_that_cannot_be_read(file: str, kind: str | None, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        read_prompt_file(file, kind, Problems(file))


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
        ("prompt,guidence\na,1\n", "line 1: unknown column 'guidence': did you mean guidance?"),
        ("prompt,Negative prompt\na,1\n", "line 1: unknown column 'Negative prompt': did you mean negative?"),
        ("prompts\na\n", "line 1: unknown column 'prompts': did you mean prompt?"),
        ("titel;Ort\na;b\n", "line 1: no column is named prompt; there are 'titel', 'Ort'"),
        ("text;Caption\na;b\n", "line 1: no column is named prompt, but 'text' and 'Caption' could be it"),
        ("prompt,my,my\na,1,2\n", "line 1: two columns are named 'my'"),
        ("prompt,,x\na,5,\n", "line 2: cell 2 is '5', but its column has no name"),
        ("prompt,seed,SEED\na,1,2\n", "line 1: two columns are named 'seed'"),
        ("prompts\na\n", "line 1: no column is named prompt"),
        ("prompt\n'a'\n\"b\"c\n", "line 3: not valid CSV"),
        ('prompt\na\n"b\n', "not valid CSV: unexpected end of data"),
        ("prompt\n" + "a" * (LONGEST_FIELD + 1), "not valid CSV: field larger than field limit"),
        ("w" * 500 + "\na\n", "no column is named prompt; there are 'wwww"),
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
        ('{"prompt": "a", "top-p": 1, "top_p": 0.5}', "two columns are named 'top-p'"),
        ('{"prompt": "a", "temprature": 1}', "unknown column 'temprature': did you mean temperature?"),
        ('{"text": "a", "caption": "b"}', "no column is named prompt, but 'text' and 'caption' could be it"),
        ('{"prompt": "a", "my": ' + "[" * 900 + "]" * 900 + "}", "nests too deep"),
        ('{"seed": 1}', "no column is named prompt"),
        ('{"prompt": null}', "there is no prompt"),
        ('{"prompt": 5}', "prompt is 5, not text"),
        ('{"prompt": "a", "seed": 1.5}', "seed is 1.5, not a whole number"),
        ('{"prompt": "a", "seed": 1e30}', "seed is 1e+30, not a whole number"),
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


# -- columns of the user's own ----------------------------------------------------------------------------------------


def test_other_columns_are_carried_through_with_one_notice(tmp_path: Path) -> None:
    text = "Take,prompt,Seed , Mood \n1,rain,7,calm\n2,wind,,\n"
    found = read_file(tmp_path, "p.csv", text)
    assert found.rows == [Row(2, "rain", 7, own={"Take": "1", "Mood": "calm"}), Row(3, "wind", own={"Take": "2"})]
    assert found.own == ("Take", "Mood")
    assert found.notices == ["columns that are no options are copied to results.csv: 'Take', 'Mood'"]
    lines = [{"prompt": "rain", "mood": "calm", "tags": ["a", {"b": None}]}, {"prompt": "x", "Take": 2, "mood": None}]
    found = read_file(tmp_path, "p.jsonl", "\n".join(map(json.dumps, lines)))
    assert found.own == ("mood", "tags", "Take")
    assert [row.own for row in found.rows] == [{"mood": "calm", "tags": '["a", {"b": null}]'}, {"Take": "2"}]
    assert len(found.notices) == 1


def test_names_that_are_near_an_option_only_by_chance_are_carried_through(tmp_path: Path) -> None:
    names = (
        "id,name,title,genre,mood,artist,notes,note,tags,key,tempo,style,category,file,filename,path,length,date,author,"
        "project,scene,cue,timecode,version,status,state,comment,lufs,error,instrument,section,intro,outro,year,index,"
        "number,row,rank,score,url,license,length_s,reviewer,take"
    )
    assert ",".join(read_file(tmp_path, "p.csv", f"prompt,{names}\nrain\n").own) == names


@pytest.mark.parametrize("name", ["text", "Caption", " description "])
def test_what_data_sets_call_a_prompt_is_one(tmp_path: Path, name: str) -> None:
    found = read_file(tmp_path, "p.csv", f"{name},seed\nrain,1\n")
    assert found.rows == [Row(2, "rain", 1)]
    assert found.notices == [f"no column is named prompt: {name.strip()!r} was read instead"]
    found = read_file(tmp_path, "p.csv", f"{name},prompt\nrain,wind\n")  # both: it is a column of the user's own
    assert found.rows == [Row(2, "wind", own={name.strip(): "rain"})]
    (row,) = read(tmp_path, "p.jsonl", json.dumps({name: "rain"}))
    assert row == Row(1, "rain")


# -- spreadsheets -----------------------------------------------------------------------------------------------------

SHEET = [
    ["Prompt", "Seed", "guidance", "Künstler"],
    ["rain, then wind; far", "1.0", "2.5", "Zoë"],
    ["wind", "", "", ""],
]


def as_sheet(delimiter: str, end: str = "\r\n") -> str:
    return end.join(delimiter.join(f'"{cell}"' if "," in cell else cell for cell in row) for row in SHEET) + end


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "utf-32", "cp1252"])
@pytest.mark.parametrize(
    ("name", "delimiter", "first"),
    [("p.csv", ",", ""), ("p.csv", ";", ""), ("p.csv", "\t", ""), ("p.TSV", "\t", "")]
    + [("p.csv", delimiter, f"sep={delimiter}\r\n") for delimiter in ",;\t|"],
)
def test_csv_as_spreadsheets_write_it(tmp_path: Path, name: str, delimiter: str, first: str, encoding: str) -> None:
    text = first + as_sheet(delimiter)
    content = codecs.BOM_UTF16_BE + text.encode("utf-16-be") if encoding == "utf-16-be-mark" else text.encode(encoding)
    found = read_file(tmp_path, name, content)
    line = 3 if first else 2
    rain = Row(line, "rain, then wind; far", 1, overrides=Overrides(guidance=2.5), own={"Künstler": "Zoë"})
    assert found.rows == [rain, Row(line + 1, "wind")]
    assert found.delimiter == delimiter
    assert (found.warning is not None) == (encoding == "cp1252")
    if found.warning is not None:
        assert "p.csv is not valid UTF-8 on line 1" in found.warning or name != "p.csv" or first
        assert "read as Windows-1252" in found.warning


def test_decimal_commas_where_they_do_not_separate_cells(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "p.csv", "prompt;guidance;steps\nrain;2,5;20,10,10,10\n")
    assert row.overrides == Overrides(guidance=2.5, steps="20,10,10,10")
    assert "guidance is '2,5', not a number" in refusal(tmp_path, "p.csv", 'prompt,guidance\nrain,"2,5"\n')


def test_rows_that_a_spreadsheet_fills_up(tmp_path: Path) -> None:
    found = read_file(tmp_path, "p.csv", ";;\nprompt;seed;;\nrain;1;;;;;\n;;;\nwind;2\n")
    assert found.rows == [Row(3, "rain", 1), Row(5, "wind", 2)]
    assert found.own == ()


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
        "text",
        "guidence",
        ";",
        "\t",
        "sep=;\n",
        "1,5",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=60) | st.lists(PIECES, max_size=30).map("".join).map(str.encode),
    name=st.sampled_from(["p.txt", "p.csv", "p.tsv", "p.jsonl"]),
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
        assert "columns are no options; at most 1,000 can be copied to the results" in told
        assert len(told) < 2_000
