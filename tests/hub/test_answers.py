"""Answers that look like the Hub's and are none: what the client library does not check, we do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from magnet_cli.errors import HubError
from magnet_cli.hub.cache import MODEL, MODEL_FILES
from magnet_cli.hub.download import Access, plan_download

COMMIT, SHA = "0" * 40, "2" * 64


class Answer:
    """What the client gets, whatever it asks."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.headers: dict[str, str] = {}
        self.status_code = 200

    def get(self, *_: object, **__: object) -> Answer:
        return self

    def head(self, *_: object, **__: object) -> Answer:
        return self

    @property
    def history(self) -> list[Answer]:
        return []

    def raise_for_status(self) -> None:
        """It is always well."""

    def json(self) -> Any:
        return json.loads(self.text)


def file(name: str, **changes: Any) -> dict[str, Any]:
    large = {"size": 10, "sha256": SHA, "pointerSize": 5}
    return {"rfilename": name, "size": 10, "blobId": COMMIT, "lfs": large, **changes}


def answer(**changes: Any) -> str:
    return json.dumps({"id": "a/b", "sha": COMMIT, "siblings": list(map(file, MODEL_FILES)), **changes})


def ask(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Any:
    monkeypatch.setattr("huggingface_hub.hf_api.get_session", lambda: Answer(text))
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: Answer(text))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return plan_download("a/b", MODEL, Access(cache_dir=folder))


def test_a_proper_answer_is_a_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = ask(monkeypatch, tmp_path, answer())
    assert (plan.revision, plan.size, plan.missing_size) == (COMMIT, 20, 20)
    assert [one.hash for one in plan.files] == [SHA, SHA]


FIRST, SECOND = MODEL_FILES


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "7", '"x"', "[]", "[[]]", "{}", "true", "[" * 100_000, '{"a":' * 100_000),
        *(answer(sha=sha) for sha in (None, 7, "x", "../../x", "A" * 40, [COMMIT])),
        *(answer(siblings=siblings) for siblings in (None, 7, "x", {}, [], [7], [None], [{}], [[]])),
        *(
            answer(siblings=[file(FIRST, size=size), file(SECOND)])
            for size in (None, "10", -1, 1.5, True, 10**30, [10], {})
        ),
        *(answer(siblings=[file(FIRST, lfs=lfs), file(SECOND)]) for lfs in (7, "x", [1], {"size": 1})),
        *(
            answer(siblings=[file(FIRST, lfs={"size": 1, "sha256": sha, "pointerSize": 1}), file(SECOND)])
            for sha in (None, 7, "../" * 20 + "x", SHA[:-1], [SHA])
        ),
        answer(siblings=[file(FIRST, lfs=None, blobId=7), file(SECOND)]),
        answer(siblings=[file(FIRST, rfilename=[FIRST]), file(SECOND)]),
        answer(lastModified=7),
        answer(cardData=7, siblings=7),
    ],
)
def test_an_answer_of_another_kind_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    with pytest.raises(HubError):
        ask(monkeypatch, tmp_path, text)
    assert not list(tmp_path.iterdir())
