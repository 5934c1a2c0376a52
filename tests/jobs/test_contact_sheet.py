"""The contact sheet: a page of its own, whose texts are texts and whose players find the clips."""

from __future__ import annotations

import time
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

from magnet_cli.jobs.contact_sheet import MOST_PLAYERS, contact_sheet
from magnet_cli.jobs.manifest import Measured
from magnet_cli.jobs.prompt_file import Row
from magnet_cli.jobs.results import BatchResults, ClipResult

# Elements without an end.
VOID = {"meta", "input", "img"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and the text of each article."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.articles: list[str] = []
        self.open: list[str] = []
        self.feed(content.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "article":
            self.articles.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "article" in self.open:
            self.articles[-1] += data


def done(prompt: str, path: str, **own: str) -> ClipResult:
    measured = Measured(9.96, -14.06, -1.0)
    return ClipResult(Row(2, prompt, own=own), prompt, path, 7, {"negative": "<i>"}, "done", None, measured, 1.0)


def test_each_clip_has_its_player_and_says_what_it_is() -> None:
    failed = ClipResult(Row(3, "b"), "b", "b.wav", 8, {}, "failed", "no <memory>")
    clips = [done("rain", "drums/a b#1%.wav", take="1"), failed, ClipResult(Row(4, "c"), "c", "c.wav", 9, {})]
    page = Page(contact_sheet(BatchResults("night", clips, ["take", "other"], ",")))
    players = [attributes for tag, attributes in page.elements if tag == "audio"]
    assert [unquote(str(one["src"])) for one in players] == ["drums/a b#1%.wav"]
    assert players[0]["preload"] == "none"
    assert "#" not in str(players[0]["src"])
    assert " ".join(page.articles[0].split()) == (
        "rain drums/a b#1%.wav done · seed 7 · 9.96 s · -14.1 LUFS · -1.0 dBTP · negative <i> take: 1"
    )
    assert " ".join(page.articles[1].split()) == "b failed: no <memory> · seed 8"
    assert " ".join(page.articles[2].split()) == "c waiting · seed 9"
    assert [attributes["class"] for tag, attributes in page.elements if tag == "article"] == [
        "done",
        "failed",
        "waiting",
    ]


def test_texts_of_others_stay_texts() -> None:
    hostile = "</bdi></p><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;\u202e"
    clips = [done(hostile, f"javascript:{hostile}.wav", **{hostile: hostile})]
    clips += [ClipResult(Row(2, hostile), hostile, "x", 1, {}, "failed", hostile)]
    page = Page(contact_sheet(BatchResults(hostile, clips, [hostile], ",")))
    assert [tag for tag, _ in page.elements if tag in ("script", "img", "style")] == ["style", "script"]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.articles[0].count(hostile) == 4
    links = [
        str(attributes.get("href") or attributes.get("src")) for tag, attributes in page.elements if tag in "a audio"
    ]
    assert len(links) == 2
    assert not any(":" in link for link in links)  # a relative link, whatever its beginning


def test_the_page_needs_nothing_from_elsewhere() -> None:
    content = contact_sheet(BatchResults("night", [done("rain", "a.wav")], [], ","))
    page = Page(content)
    assert [tag for tag, attributes in page.elements if {"src", "href"} & attributes.keys()] == ["audio", "a"]
    assert b"//" not in content
    assert b"url(" not in content
    assert b"import" not in content


def test_ten_thousand_clips_have_links_where_players_would_be_too_many() -> None:
    """0.3 s where this was written."""
    clips = [done(f"prompt {k}", f"{k}.wav") for k in range(10_000)]
    started = time.process_time()
    content = contact_sheet(BatchResults("night", clips, [], ","))
    assert time.process_time() - started < 5
    assert content.count(b"<audio ") == MOST_PLAYERS
    assert content.count(b"<a href=") == 10_000


def test_a_clip_with_a_picture_shows_it() -> None:
    clips = [replace(done("rain", "a.wav"), picture='drums/a "b#1%.png'), done("wind", "b.wav")]
    page = Page(contact_sheet(BatchResults("night", clips, [], ",")))
    (shown,) = [attributes for tag, attributes in page.elements if tag == "img"]
    assert unquote(str(shown["src"])) == 'drums/a "b#1%.png'
    assert shown["loading"] == "lazy"
