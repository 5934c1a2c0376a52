"""Forgotten quotes, and a file's name where a prompt belongs: noticed before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from magnet_cli.terminal.console import Console
from support.command import Magnet, one_line_error

WORDS = ["a", "slow", "blues", "with", "a", "lonely", "guitar", "and", "brushes"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As on a terminal, where every question is answered with no; the questions."""
    questions: list[str] = []

    def confirm(self: Console, question: str) -> None:
        import typer

        questions.append(question)
        raise typer.Abort

    monkeypatch.setattr(Console, "can_ask", True)
    monkeypatch.setattr(Console, "confirm", confirm)
    return questions


def generate(magnet: Magnet, tiny: str, *arguments: str) -> tuple[int, str]:
    result = magnet("generate", *arguments, "--model", tiny, "--steps", "1,1,1,1", "--device", "cpu", "--seed", "1")
    return result.code, result.err


def test_two_words_are_announced_as_two_prompts(magnet: Magnet, tiny: str) -> None:
    code, err = generate(magnet, tiny, "disco", "beat")
    assert code == 0
    assert err.startswith("2 prompts, so 2 different clips. If this is one prompt, ")
    assert 'magnet generate "disco beat"' in err
    assert len(list(Path().glob("*.wav"))) == 2
    code, err = generate(magnet, tiny, "slow blues", "brushes", "-f")
    assert err.startswith("2 prompts, so 2 different clips\n")
    assert "prompts" not in generate(magnet, tiny, "disco beat", "-n", "2", "-f")[1]


def test_on_a_terminal_many_prompts_are_a_question(magnet: Magnet, tiny: str, asked: list[str]) -> None:
    code, err = generate(magnet, tiny, *WORDS)
    assert (code, asked) == (1, ["Generate 9 clips?"])
    assert "put quotes around it" in err
    assert generate(magnet, tiny, *WORDS[:8])[0] == 0
    assert len(asked) == 1
    assert generate(magnet, tiny, *WORDS, "--yes", "-f")[0] == 0
    assert len(asked) == 1


def test_in_a_script_many_single_words_are_an_error_and_quoted_prompts_are_not(magnet: Magnet, tiny: str) -> None:
    result = magnet("generate", *WORDS, "--model", tiny)
    one_line_error(result, 2, "9 prompts, so 9 different clips, of one word each", "--yes")
    assert not list(Path().iterdir())
    assert generate(magnet, tiny, *(f"{word} drum" for word in WORDS))[0] == 0
    assert generate(magnet, tiny, *WORDS, "-y")[0] == 0


def test_a_file_is_not_taken_for_a_prompt(magnet: Magnet, tiny: str) -> None:
    Path("prompts.txt").write_text("disco\n")
    one_line_error(magnet("generate", "prompts.txt"), 2, "is a file", "magnet batch prompts.txt -o clips/", "--yes")
    assert generate(magnet, tiny, "prompts.txt", "--yes")[0] == 0
    Path("disco.wav").write_text("x")
    one_line_error(magnet("generate", "disco.wav"), 2, "--inpaint disco.wav", "magnet again disco.wav")
    Path("rain").write_text("x")  # a word that happens to be a file's name, too
    assert generate(magnet, tiny, "rain")[0] == 0


def test_on_a_terminal_a_file_is_a_question(magnet: Magnet, asked: list[str]) -> None:
    Path("prompts.txt").write_text("disco\n")
    assert magnet("generate", "prompts.txt").code == 1
    assert asked == ["Generate from the name?"]


def test_a_prompt_is_not_taken_for_a_file(magnet: Magnet) -> None:
    one_line_error(magnet("batch", "disco beat", "-o", "clips"), 2, "no file", 'magnet generate "disco beat"')
