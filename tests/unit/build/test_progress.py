"""Events as text, without a terminal."""

from typing import Any

import msgspec

from kestrel.build.events import Done, Event, Exported, Lines, Listed, Log, Planned, Reused, Started
from kestrel.build.progress import Live, Plain, Raw

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
    assert [event.line for event in heard if isinstance(event, Log)] == ["one", "two", "10%\r100%", "rest"]


def test_control_characters_of_a_build_do_not_reach_the_terminal() -> None:
    out: list[str] = []
    printer = Live(out.append, columns=60, clock=lambda: 0.0)
    printer.feed(plain_values()[0])
    printer.feed({"event": "warned", "text": "\x1b[31mred\x07"})
    assert "\x1b[31m" not in "".join(out)


def live(events: list[Event], **size: int) -> str:
    out: list[str] = []
    printer = Live(out.append, clock=lambda: 0.0, **size)
    for event in events:
        printer.feed(msgspec.to_builtins(event))
    printer.tick()
    return out[-1].rpartition("\x1b[J")[2]


def test_live_text_is_never_higher_than_the_terminal() -> None:
    steps = tuple(Listed(id=f"s{n}/1", title=f"RUN {n}", stage=f"s{n}") for n in range(30))
    began = [Started(step=step.id, reason="x") for step in steps]
    said = [Log(step=step.id, stream="stdout", line=f"{step.id} {n}") for step in steps for n in range(4)]
    plan = Planned(dockerfile="Dockerfile", target="", steps=steps)
    for count, rows, last in (
        (30, 10, "> and 22 more"),
        (3, 10, "    s2/1 3"),
        (2, 40, "    s1/1 3"),
        (9, 10, "> [s8 1/1] RUN 8  ("),
    ):
        names = {step.id for step in steps[:count]}
        events = [plan, *(e for e in began if e.step in names), *(e for e in said if e.step in names)]
        lines = live(events, rows=rows).splitlines()
        assert len(lines) < rows
        assert lines[-1].startswith(last)


def test_live_text_gives_wide_characters_their_room() -> None:
    step = Listed(id="s/1", title="RUN " + "\N{HANGUL SYLLABLE GA}" * 40, stage="s")
    text = live([Planned(dockerfile="", target="", steps=(step,)), Started(step="s/1", reason="")], columns=40)
    (line,) = text.splitlines()
    assert sum(2 if character == "\N{HANGUL SYLLABLE GA}" else 1 for character in line) < 40
    assert line.endswith("\N{HANGUL SYLLABLE GA}…")


def test_what_a_carriage_return_paints_over_is_kept_but_not_shown() -> None:
    events: list[Event] = []
    lines = Lines("s/1", events.append)
    lines.feed("stdout", b"10%\r50%\r100%\nend\r\n")
    assert [event.line for event in events if isinstance(event, Log)] == ["10%\r50%\r100%", "end"]
    assert lines.tail == ["100%", "end"]
    out: list[str] = []
    for event in events:
        Plain(out.append).feed(msgspec.to_builtins(event))
    assert out == ["s/1   100%\n", "s/1   end\n"]


def test_steps_are_counted_for_each_build() -> None:
    out: list[str] = []
    printer = Plain(out.append)
    for event in [*plain_values(), *plain_values()]:
        printer.feed(event)
    assert out[-1].endswith("steps 1 run, 1 reused\n")


def test_events_can_be_had_as_they_are() -> None:
    out: list[str] = []
    printer = Raw(out.append, msgspec.json.encode)
    for event in plain_values():
        printer.feed(event)
    assert [msgspec.json.decode(line) for line in out] == msgspec.json.decode(msgspec.json.encode(EVENTS))
