"""The contact sheet of a batch: one page with a player for every clip, which a browser opens from the disk.

The page needs nothing from elsewhere. All texts of the user are escaped, and its script only hides rows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from html import escape
from urllib.parse import quote

from magnet_cli.jobs.results import BatchResults, ClipResult

CONTACT_SHEET_FILE = "index.html"
# A browser builds a player out of dozens of elements. Beyond this many, clips have links in place of players.
MOST_PLAYERS = 2000

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.4 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
header { background: Canvas; padding: .5rem 0; position: sticky; top: 0; }
h1 { font-size: 1.3rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
input { box-sizing: border-box; font: inherit; max-width: 30rem; padding: .3rem .5rem; width: 100%; }
article { border-top: 1px solid #8886; content-visibility: auto; contain-intrinsic-size: auto 7rem; padding: .7rem 0; }
article[hidden] { display: none; }
audio { display: block; max-width: 40rem; width: 100%; }
img { display: block; height: auto; margin: .3rem 0; max-width: 40rem; width: 100%; }
p { margin: 0 0 .3rem; overflow-wrap: anywhere; white-space: pre-wrap; }
small { color: GrayText; display: block; overflow-wrap: anywhere; }
.failed b { color: #c22; }
"""

SCRIPT = """
const rows = [...document.querySelectorAll("article")], box = document.querySelector("input");
const texts = rows.map(row => row.textContent.toLowerCase()), count = document.querySelector("output");
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\\s+/);
  let shown = 0;
  rows.forEach((row, place) => {
    row.hidden = !words.every(word => texts[place].includes(word));
    shown += !row.hidden;
  });
  count.value = shown + " of " + rows.length + " shown";
});
addEventListener("play", event => {
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);
"""


def contact_sheet(results: BatchResults) -> bytes:
    """The page: every clip with its player, prompt, seed, loudness and state, and a box that filters them."""
    return "\n".join(_page(results)).encode("utf-8", "replace")


def _page(results: BatchResults) -> Iterator[str]:
    title = escape(results.title)
    states = Counter(clip.state for clip in results.clips)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>"
    yield f"<header>\n<h1><bdi>{title}</bdi></h1>"
    counts = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
    yield f"<p>{len(results.clips):,} {'clip' if len(results.clips) == 1 else 'clips'}: {counts}</p>"
    yield '<input type="search" placeholder="Filter, e.g. piano failed" aria-label="Filter"> <output></output>'
    yield "</header>\n<main>"
    for place, clip in enumerate(results.clips):
        yield from _article(clip, results, player=place < MOST_PLAYERS)
    yield f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"


def _article(clip: ClipResult, results: BatchResults, *, player: bool) -> Iterator[str]:
    yield f'<article class="{clip.state}">'
    yield f"<p><bdi>{escape(clip.prompt)}</bdi></p>"
    if clip.state == "done":
        link = quote(os.fsencode(clip.path))  # also of a colon, before which stands the scheme of a URL
        if player:
            yield f'<audio controls preload="none" src="{link}"></audio>'
        if clip.picture is not None:
            image = quote(os.fsencode(clip.picture))
            yield f'<a href="{image}"><img loading="lazy" src="{image}" alt="waveform and spectrogram"></a>'
        yield f'<small><a href="{link}"><bdi>{escape(clip.path)}</bdi></a></small>'
    error = "" if clip.error is None else f": <bdi>{escape(clip.error)}</bdi>"
    facts = [f"<b>{clip.state}</b>{error}", f"seed {clip.seed}", *_facts(clip)]
    yield f"<small>{' · '.join(facts)}</small>"
    own = [(name, clip.row.own[name]) for name in results.own if name in clip.row.own]
    if own:
        yield f"<small>{' · '.join(f'{escape(name)}: <bdi>{escape(cell)}</bdi>' for name, cell in own)}</small>"
    yield "</article>"


def _facts(clip: ClipResult) -> Iterator[str]:
    measured = clip.measured
    if measured is not None and measured.seconds is not None:
        yield f"{measured.seconds:.2f} s"
    if measured is not None and measured.lufs is not None:
        yield f"{measured.lufs:.1f} LUFS"
    if measured is not None and measured.true_peak is not None:
        yield f"{measured.true_peak:.1f} dBTP"
    for name, value in clip.options.items():
        yield escape(f"{name} {value}")
