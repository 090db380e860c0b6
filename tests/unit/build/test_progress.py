"""Events as text, without a terminal."""

from typing import Any

import msgspec

from kestrel.build.events import Done, Event, Exported, Lines, Listed, Log, Planned, Reused, Started
from kestrel.build.progress import Live, Plain

EVENTS: list[Event] = [
    Planned(
        dockerfile="Dockerfile",
        target="final",
        steps=(
            Listed(id="final/1", title="COPY . .", stage="final"),
            Listed(id="final/2", title="RUN make", stage="final"),
        ),
    ),
    Reused(step="final/1", reason="nothing it depends on changed"),
    Started(step="final/2", reason="the command changed"),
    Log(step="final/2", stream="stdout", line="cc -o x"),
    Done(step="final/2", seconds=1.5, size=2000),
    Exported(image="sha256:0123456789abcdef", names=("app:1",), seconds=0.01),
]


def plain_values() -> list[dict[str, Any]]:
    return [msgspec.to_builtins(event) for event in EVENTS]


def test_plain_text_has_a_line_for_each_thing() -> None:
    out: list[str] = []
    printer = Plain(out.append)
    for event in plain_values():
        printer.feed(event)
    assert "".join(out).splitlines() == [
        "[final 1/2] COPY . . ... reused",
        "[final 2/2] RUN make ... running: the command changed",
        "[final 2/2]   cc -o x",
        "[final 2/2] done in 1.5s, 2kB",
        "image sha256:0123456789ab (app:1): steps 1 run, 1 reused",
    ]


def test_live_text_repaints_what_runs_and_leaves_what_is_done() -> None:
    out: list[str] = []
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1
        return now

    printer = Live(out.append, columns=60, clock=clock)
    for event in plain_values():
        printer.feed(event)
    printer.close()
    text = "".join(out)
    assert "> [final 2/2] RUN make" in text
    assert "    cc -o x" in text
    assert "\x1b[2A\x1b[J+ [final 2/2] RUN make  (done in 1.5s, 2kB" in text  # two lines taken back, one left for good
    assert all(len(line) <= 70 for line in text.split("\n"))  # cut to the width, escapes aside
    assert text.rstrip().endswith("steps 1 run, 1 reused")


def test_output_is_cut_into_lines_whatever_pieces_it_comes_in() -> None:
    heard: list[Event] = []
    lines = Lines("s", heard.append)
    for piece in (b"on", b"e\ntw", b"o\n10%\r100%\nrest"):
        lines.feed("stdout", piece)
    lines.flush()
    assert [event.line for event in heard if isinstance(event, Log)] == ["one", "two", "100%", "rest"]


def test_control_characters_of_a_build_do_not_reach_the_terminal() -> None:
    out: list[str] = []
    printer = Live(out.append, columns=60, clock=lambda: 0.0)
    printer.feed(plain_values()[0])
    printer.feed({"event": "warned", "text": "\x1b[31mred\x07"})
    assert "\x1b[31m" not in "".join(out)
