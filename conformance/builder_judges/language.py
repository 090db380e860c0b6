"""The pure corpora: parser, here-documents, JSON arrays, substitution, .dockerignore."""

import re
from collections.abc import Iterator
from pathlib import Path

from builder_judges import golang
from builder_judges.report import Report, outcome
from kestrel.base.errors import KestrelError
from kestrel.dockerfile import Expander, decode, parse, parse_ignore
from kestrel.dockerfile.decode import json_strings
from kestrel.dockerfile.gitref import GitRef, parse_git
from kestrel.dockerfile.ignore import compile_patterns
from kestrel.dockerfile.lexer import opening, openings, words
from kestrel.dockerfile.nodes import Node
from kestrel.dockerfile.parser import trigger

_JSON = ("ADD", "COPY", "RUN", "CMD", "ENTRYPOINT", "SHELL", "VOLUME")


def quoted(text: str) -> str:
    """Quote as Go's strconv.Quote."""
    out = []
    named = {
        "\\": "\\\\",
        '"': '\\"',
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
    }
    for c in text:
        if c in named:
            out.append(named[c])
        elif ord(c) < 0x20 or ord(c) == 0x7F:
            out.append(f"\\x{ord(c):02x}")
        else:
            out.append(c)
    return '"' + "".join(out) + '"'


def dump(node: Node, source: object, escape: str) -> str:
    """Print an instruction in the form of the corpus."""
    flags = f" [{' '.join(quoted(str(flag)) for flag in node.flags)}]" if node.flags else ""
    if node.keyword == "ONBUILD":
        inner = trigger(node, source)  # type: ignore[arg-type]  # the caller's Source
        return f"onbuild{flags} ({dump(inner, source, escape)})"
    return " ".join([node.keyword.lower() + flags, *map(quoted, arguments(node, escape))])


def arguments(node: Node, escape: str) -> list[str]:
    rest = node.arguments
    if not rest:
        return []
    if node.keyword in _JSON and (found := json_strings(rest)) is not None:
        return list(found)
    if node.keyword in ("ADD", "COPY", "VOLUME", "FROM", "EXPOSE"):
        return rest.split()
    if node.keyword == "ARG":
        return [word for word, _ in words(rest, escape)]
    if node.keyword in ("ENV", "LABEL"):
        return pairs(rest, escape)
    if node.keyword == "HEALTHCHECK":
        kind, *after = rest.split(None, 1)
        if kind.upper() == "CMD" and after and (found := json_strings(after[0])) is not None:
            return [kind, *found]
        return [kind, *after]
    return [rest]


def pairs(rest: str, escape: str) -> list[str]:
    parts = [word for word, _ in words(rest, escape)]
    if "=" not in parts[0]:
        name, *value = rest.split(None, 1)
        return [name, *value, ""]
    out = []
    for part in parts:
        name, _, value = part.partition("=")
        out += [name, value, "="]
    return out


def parser(root: Path) -> Iterator[Report]:
    base = root / "frontend/dockerfile/parser"
    report = Report("buildkit parser/testfiles")
    for directory in sorted((base / "testfiles").iterdir()):

        def print_all(path: Path = directory) -> str:
            document = parse((path / "Dockerfile").read_bytes())
            return "".join(f"({dump(n, document.source, document.escape)})\n" for n in document.nodes)

        report.check(directory.name, (directory / "result").read_text(), outcome(print_all, KestrelError))
    yield report
    report = Report("buildkit parser/testfiles-negative")
    for directory in sorted((base / "testfiles-negative").iterdir()):
        text = (directory / "Dockerfile").read_bytes()
        report.check(directory.name, "error", outcome(lambda t=text: decode(parse(t)), KestrelError))
    yield report
    report = Report("buildkit parser/testfile-line")
    nodes = parse((base / "testfile-line/Dockerfile").read_bytes()).nodes
    report.check("lines", [(5, 5), (11, 12), (17, 31)], [(n.range.first, n.range.last) for n in nodes])
    yield report
    yield json_arrays(base / "json_test.go")
    yield heredocs(base / "parser_heredoc_test.go")
    yield instructions(root / "frontend/dockerfile/instructions")


def json_arrays(path: Path) -> Report:
    report = Report("buildkit parser/json_test")
    text = path.read_text()
    names = {"source": text}
    for name in ("invalidJSONArraysOfStrings", "validJSONArraysOfStrings"):
        found = golang.tokens(text)
        at = next(i for i, t in enumerate(found) if t.text == name)
        table = golang.Reader(found, at + 2, names).expression()
        for case in table:
            expected = table[case] if isinstance(table, dict) else "error"
            seen = outcome(lambda c=case: json_strings(c.strip()), KestrelError)
            if expected == "error":
                report.verdict(case, seen in ("error", None), repr(seen))
            else:
                report.check(case, expected, list(seen) if isinstance(seen, tuple) else seen)
    return report


def heredocs(path: Path) -> Report:
    report = Report("buildkit parser/parser_heredoc_test")
    bodies = golang.functions(path.read_text())
    body = bodies["TestParseExtractsHeredoc"]
    text = golang.unquote(re.search(r"`[^`]*`", body)[0])  # type: ignore[index]  # the test has its text there
    # One line of it is no instruction, which our parser refuses where theirs leaves it to a later pass.
    nodes = parse(text.replace("\nINVALID\n", "\nUSER INVALID\n")).nodes
    for number, expected in enumerate(_table(body, r"tests := ", {})):
        node = nodes[number + 1]
        wanted = [
            (h["Name"], h["Content"], h.get("Expand", False), h.get("Chomp", False), h.get("FileDescriptor", 0))
            for h in expected or []
        ]
        seen = [(h.name, h.content, h.expand, h.strip_tabs, int(h.descriptor or 0)) for h in node.heredocs]
        report.check(node.text, wanted, seen)
    for word in ("<<EOF", "<<'EOF'", '<<"EOF"', "<<-EOF", "<<-'EOF'", '<<-"EOF"', '<<EO"F"', "<< EOF", "<<- EOF"):
        made = opening(word)
        report.check(word, "EOF", made and made.name)
    for word in ("<<'EOF", '<<"EOF', "<<EOF'", '<<EOF"'):
        report.check(word, "error", outcome(lambda w=word: opening(w), KestrelError))
    for word in ("", "EOF", "<<", "<<-", "<EOF", "<<<EOF", "<<EOF sh"):
        report.check(word, None, outcome(lambda w=word: opening(w), KestrelError))
    for case in _table(bodies["TestHeredocsFromLine"], r"srcs := ", {}):
        found = [o.name for _, o in openings(case["line"].split(None, 1)[1]) if o is not None]
        report.check(case["line"], case.get("heredocNames") or [], found)
    return report


def instructions(base: Path) -> Report:
    report = Report("buildkit instructions")
    bodies = golang.functions((base / "parse_test.go").read_text())
    bodies |= golang.functions((base / "parse_heredoc_test.go").read_text())
    for name in ("TestErrorCases", "TestErrorCasesHeredoc"):
        for case in _table(bodies[name], r"cases := ", {}):
            seen = outcome(lambda c=case: decode(parse("FROM scratch\n" + c["dockerfile"])), KestrelError)
            report.verdict(f"{name} {case['dockerfile']!r}", seen == "error", repr(seen))
    for name in (
        "TestCommandsExactlyOneArgument",
        "TestCommandsAtLeastOneArgument",
        "TestCommandsNoDestinationArgument",
    ):
        suffix = " arg1" if name.endswith("DestinationArgument") else ""
        for word in _table(bodies[name], r"commands := ", {}):
            seen = outcome(lambda w=word, s=suffix: decode(parse(f"FROM scratch\n{w}{s}")), KestrelError)
            report.verdict(f"{name} {word}", seen == "error", repr(seen))
    for case in _table(bodies["TestCopyHeredoc"], r"cases := ", {}):
        program = decode(parse("FROM scratch\n" + case["dockerfile"]))
        copied = program.stages[0].instructions[0]
        wanted = case["sourcesAndDest"]
        files = [(c["Path"], c["Data"], c.get("Expand", False)) for c in wanted.get("SourceContents", [])]
        report.check(
            f"TestCopyHeredoc {case['dockerfile']!r}",
            (wanted["DestPath"], wanted.get("SourcePaths", []), files),
            (copied.destination, list(copied.sources), [(h.name, h.body, h.expand) for h in copied.inline]),
        )
    for case in _table(bodies["TestRunHeredoc"], r"cases := ", {}):
        run = decode(parse("FROM scratch\n" + case["dockerfile"])).stages[0].instructions[0]
        files = [(f["Name"], f["Data"], f.get("Chomp", False)) for f in case.get("files", [])]
        report.check(
            f"TestRunHeredoc {case['dockerfile']!r}",
            (case.get("shell", False), case["command"], files),
            (run.command.shell, list(run.command.argv), [(h.name, h.content, h.strip_tabs) for h in run.heredocs]),
        )
    return report


def shell(root: Path) -> Iterator[Report]:
    base = root / "frontend/dockerfile/shell"
    report = Report("buildkit shell/envVarTest")
    env = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}
    for number, line in enumerate((base / "envVarTest").read_text().splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        tag, text, expected = (part.strip() for part in line.split("|"))
        if tag == "W":
            report.skip(f"{number}: {text}", "Windows only")
            continue
        report.check(f"{number}: {text}", expected, outcome(lambda t=text: Expander().word(t, env), KestrelError))
    yield report
    report = Report("buildkit shell/wordsTest")
    env = {}
    for number, line in enumerate((base / "wordsTest").read_text().split("\n"), 1):
        if line.startswith("#") or not line:
            continue
        if line.startswith("ENV "):
            name, _, value = line[3:].lstrip(" ").partition("=")
            env[name] = value
            continue
        text, _, expected = line.partition("|")
        seen = outcome(lambda t=text: Expander().words(t.strip(), env), KestrelError)
        report.check(f"{number}: {text.strip()}", expected.lstrip(" ").split(","), [seen] if seen == "error" else seen)
    yield report
    yield matches(base / "lex_test.go")


def matches(path: Path) -> Report:
    report = Report("buildkit shell/lex_test")
    body = golang.functions(path.read_text())["TestProcessWithMatches"]
    found = golang.tokens(body)
    at = next(i for i, t in enumerate(found) if t.text == "tc")
    for case in golang.Reader(found, at + 2, {"source": body}).expression():

        def expand(case: dict[str, object] = case) -> object:
            made = Expander().expand(case["input"], case.get("envs", {}))
            return made.words[0], sorted(made.used), sorted(made.unset | made.defaulted)

        seen = outcome(expand, KestrelError)
        expected = (case.get("expected", ""), sorted(case.get("matches") or {}), sorted(case.get("unmatched") or {}))
        report.check(f"{case['input']} {case.get('envs')}", "error" if case.get("expectedErr") else expected, seen)
    required = "${VAR:?message here$ARG}", "${VAR?message here$ARG}"
    for text, env, expected in (
        (required[0], {"VAR": "plain", "ARG": "x"}, "plain"),
        (required[0], {"VAR": "", "ARG": "x"}, "message herex"),
        (required[0], {"ARG": "x"}, "message herex"),
        (required[1], {"VAR": "plain", "ARG": "x"}, "plain"),
        (required[1], {"VAR": "", "ARG": "x"}, ""),
        (required[1], {"ARG": "x"}, "message herex"),
    ):
        try:
            seen = Expander().word(text, env)
        except KestrelError as error:
            seen = "message herex" if "message herex" in error.message else error.message
        report.check(f"{text} {env}", expected, seen)
    return report


def ignore(root: Path) -> Iterator[Report]:
    text = (root / "patternmatcher_test.go").read_text()
    bodies = golang.functions(text)
    names = {
        "type matchesTestCase": ["pattern", "text", "pass"],
        "type multiPatternTestCase": ["patterns", "text", "pass"],
    }
    report = Report("patternmatcher TestMatches")
    for name, pattern in (("tests", r"\btests := "), ("multiPatternTests", r"multiPatternTests := ")):
        for case in _table(bodies["TestMatches"], pattern, names):
            patterns = [case["pattern"]] if name == "tests" else case["patterns"]
            report.check(f"{patterns} {case['text']}", case["pass"], compile_patterns(patterns).ignores(case["text"]))
    more = re.search(r'\{"a\\\\\*b", "a\*b", true\}', bodies["TestMatches"])
    if more:
        report.check("a\\*b", True, compile_patterns(["a\\*b"]).ignores("a*b"))
    yield report
    report = Report("patternmatcher TestMatch")
    for match in re.finditer(
        r'\{("(?:\\.|[^"])*"|`[^`]*`), ("(?:\\.|[^"])*"|`[^`]*`), (true|false), (nil|\w+\.?\w*)\}', text
    ):
        pattern, subject = golang.unquote(match[1]), golang.unquote(match[2])
        expected = "error" if match[4] != "nil" else match[3] == "true"

        def matched(pattern: str = pattern, subject: str = subject) -> bool:
            return compile_patterns([pattern]).ignores(subject)

        report.check(f"{pattern} {subject}", expected, outcome(matched, KestrelError))
    yield report
    yield _single_cases(bodies)


def _table(body: str, pattern: str, names: dict[str, object]) -> list[dict[str, object]]:
    found = golang.tokens(body)
    start = re.search(pattern, body)
    assert start is not None
    at = next(i for i, t in enumerate(found) if t.at >= start.end())
    return golang.Reader(found, at, {"source": body, **names}).expression()  # type: ignore[no-any-return]  # a table


def _single_cases(bodies: dict[str, str]) -> Report:
    """The small functions around the tables: each is one line of ours."""
    report = Report("patternmatcher single cases")
    for name, body in bodies.items():
        match = re.search(r'(?:Matches)\("([^"]*)", \[\]string\{([^}]*)\}\)', body)
        if match is None or "err == nil" in body or not match[2]:
            continue
        patterns = [golang.unquote(p) for p in re.findall(r'"(?:\\.|[^"])*"', match[2])]
        negative = re.search(r"if match \{", body) is not None
        report.check(name, not negative, compile_patterns(patterns).ignores(match[1]))
    for text in ("!", "!\n"):
        report.check(f"single exclamation {text!r}", "error", outcome(lambda t=text: parse_ignore(t), KestrelError))
    report.check("malformed [", "error", outcome(lambda: compile_patterns(["["]), KestrelError))
    report.check("no patterns", False, compile_patterns([]).ignores("/any/path/there"))
    content = "test1\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path\n"
    report.check(
        "reader",
        ["test1", "test2", "a/file/here", "lastfile", "!inverted/abs/path"],
        [str(p) for p in parse_ignore(content).patterns],
    )
    return report


def git(root: Path) -> Iterator[Report]:
    report = Report("buildkit dfgitutil")
    body = golang.functions((root / "frontend/dockerfile/dfgitutil/git_ref_test.go").read_text())
    for case in _table(body["TestParseGitRef"], r"cases := ", {}):
        seen = outcome(lambda c=case: parse_git(c["ref"]), KestrelError)
        expected = case.get("expected")
        if expected is None:
            report.verdict(case["ref"], seen in (None, "error"), repr(seen))
            continue
        if isinstance(seen, GitRef):
            seen = {
                "Remote": seen.remote,
                "ShortName": seen.name,
                "Ref": seen.ref,
                "SubDir": seen.subdir,
                "Checksum": seen.checksum,
                "MTime": seen.mtime,
                "UnencryptedTCP": seen.plain,
                "IndistinguishableFromLocal": seen.implicit,
                "FetchByCommit": seen.fetch_by_commit,
            }
            seen = {key: value for key, value in seen.items() if value}
        report.check(case["ref"], expected, seen)
    yield report
