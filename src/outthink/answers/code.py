"""Where in a text its code stands: fenced blocks of every form, tags, sessions, and code between sentences.

A text is read line by line, lines end with a line feed and nothing else, and nothing is parsed as Python: all work is
linear in the text, whatever it is.

**Blocks.** A fence is three or more backticks or tildes, indented, in a list or in a quotation; its block is moved to
the left as far as the fence stands from the margin. A fence inside a text in three quotes (an example in a docstring)
ends nothing. A fence with a language ends a block that was left open, and begins the next one. A fence that closes
nothing ends the code before it. `[PYTHON]` and `[/PYTHON]` are fences, too. Of a session (`>>>`) the input is taken.
Without a block, code between sentences is found by how its lines look; so is a mere body, which is indented.

**Choice.** The end of a thought divides the text; the last part with code counts. In it, the block that defines what is
asked for is taken, the last one of several; where that is not known, the last one that defines something and is no
test. Definitions and imports of other blocks that it uses and does not have are put before it.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from outthink.types import Problem

_PREFIX = r"(?P<prefix>[ \t]*+(?:>[ \t]*+|(?:[-*+]|[0-9]{1,9}[.)])[ \t]++)*+)"
_FENCE = re.compile(_PREFIX + r"(?P<mark>`{3,}|~{3,}|\[/?PYTHON\])(?P<info>.*)", re.DOTALL)
_INLINE = re.compile(r"(?<!`)(?P<mark>`{3,}+)[ \t]*+(?P<info>[A-Za-z][\w.+-]*)[ \t]*$")
_ONE_LINE = re.compile(r"(?<!`)`++([^`\n]++)`++")
_TAG = re.compile(r"\[/?PYTHON\]")
_LANGUAGE = re.compile(r"[ \t]*(?P<name>\{?\.?[A-Za-z][\w.+#-]*)?(?P<rest>[^`]*)", re.DOTALL)
_PYTHON = re.compile(r"(?:i?python|py|pycon|python-repl|sage)[0-9.]*w?|pyi|gyp")
_OPENER = re.compile(r"^[ \t>]*+(?:```|~~~)[`~]*[ \t]*[A-Za-z{]", re.MULTILINE)
_THOUGHT_END = re.compile(
    r"</[a-z_:-]{0,20}?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)>|</cot>|\[/THINK\]|◁/think▷|"
    r"<\|channel\|>[ \t]*final[ \t]*(?:<\|message\|>)?|<\|end_(?:of_thought|think|thinking)\|>"
    r"|<\|(?:think|thinking)_end\|>|<\|/think(?:ing)?\|>",
    re.IGNORECASE,
)
_TOKEN = re.compile(r'#|"""|\'\'\'|"(?:[^"\\]|\\.)*+"?|\'(?:[^\'\\]|\\.)*+\'?|[()\[\]{}]|\\')
_IN_TEXT = {delimiter: re.compile(rf"\\.|{delimiter}", re.DOTALL) for delimiter in ('"""', "'''")}
_HEAD = re.compile(
    r"(?:async[ ]+)?def[ ]+\w+[ ]*[(\[]|class[ ]+\w+[ ]*[(:\[]|@[A-Za-z_][\w.]*[ ]*(?:\(.*)?$|"
    r"import[ ]+[\w.]+(?:[ ]+as[ ]+\w+)?[ ]*(?:[,;#].*)?$|from[ ]+[\w.]+[ ]+import[ ]+[\w(*]"
)
_CODE_LINE = re.compile(
    _HEAD.pattern + r"|(?:if|elif|for|while|with|async|match|case|try|except|else|finally)\b.*:[ ]*(?:#.*)?$|"
    r"(?:return|raise|assert|yield|del|global|print)\b|(?:pass|break|continue)[ ]*(?:#.*)?$|[#)\]}]|"
    r"[rbuf]?(?:\"{3}|'{3})|[A-Za-z_][\w.]*+(?:\[[^\]]*+\])?(?:[ ]*,[ ]*[A-Za-z_]\w*+)*+[ ]*+(?::[ ]*+[^ =][^=]*+)?"
    r"(?:[-+*/%&|^@]|//|\*\*|<<|>>)?=(?!=)|[A-Za-z_][\w.]*+\(.*(?:\)|,|\()[ ]*(?:#.*)?$"
)
_DEFINES = re.compile(r"(?:async[ ]+)?(?:def|class)[ ]+(\w+)")
_ASSIGNS = re.compile(r"([A-Za-z_]\w*(?:[ ]*,[ ]*[A-Za-z_]\w*)*)[ ]*(?::[^=]*)?=(?!=)")
_IMPORTS = re.compile(r"(?:from[ ]+([\w.]+)[ ]+)?import[ ]+(.*)", re.DOTALL)
_FUTURE = re.compile(r"from[ ]+__future__[ ]+import\b")
_WORD = re.compile(r"(?<![\w.])[^\W\d]\w*")
_BOUND = re.compile(
    r"\b(?:def[ ]+\w+[ ]*\(([^)]{0,500})|lambda([^:]{0,100}):|for[ ]+([^:]{0,100}?)[ ]+in\b|as[ ]+(\w+)|"
    r"import[ ]+([\w, ]{1,200})|(?:def|class)[ ]+(\w+))|"
    r"(?<![\w.])([^\W\d]\w*+(?:[ ]?,[ ]?[^\W\d]\w*+){0,9})[ ]?(?:[-+*/%&|^@]|//|\*\*|<<|>>)?:?=(?!=)"
)
_CALLED = re.compile(r"(?<![\w.])([^\W\d]\w*)[ ]*\(")
_NAMED = re.compile(r"(?<![\w.])([^\W\d]\w*)[ ]*\(|`([^\W\d]\w*)`|\b(?:def|class)[ ]+(\w+)")
_TESTING = re.compile(r"(?:test|check_)\w*|Test\w*|\w+_tests?|\w+Tests?|main|_?demo\w*|_?example\w*|usage")
_TEST_TOOLS = re.compile(r"^(?:import|from)[ ]+(?:unittest|pytest|doctest|hypothesis)\b", re.MULTILINE)
_STUB = re.compile(r"(?:pass|\.\.\.|raise NotImplementedError(?:\(.*\))?|return NotImplemented)[ ]*(?:#.*)?")
_FOLLOWS = re.compile(r"(?:else|elif|except|finally)\b|[)\]}]")
_ONE_EXPRESSION = re.compile(r"return |[A-Za-z_]\w*[ ]*=[ ]*lambda\b")
_UNSEEN = re.compile(r"^\ufeff|[\u200b\ufeff]+(?=[ \t]*$)|^[ \t]*\u00a0[\u00a0 \t]*", re.MULTILINE)
_BODY = re.compile(r"[ \t]+(?:return|yield|raise)\b")
MAX_BLOCKS = 200
"""Most blocks of a text that are looked at, the last ones."""
_DEPTH = 3  # of blocks inside blocks
_BUILTIN = frozenset(dir(builtins))


@dataclass(slots=True)
class Block:
    """A block of a text.

    Args:
        language: "python"; "" where none is given; "bare" for code between sentences; else the word behind the fence.
        content: its lines, without the indentation of the fence.
        closed: whether it has an end of its own.
        part: how many thoughts have ended before it.
    """

    language: str
    content: str
    closed: bool = True
    part: int = 0


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text in its order; linear, never raises."""
    return [block for block in _Scanner(text).blocks if block.language != "bare"]


def asked_names(problem: Problem) -> tuple[str, ...]:
    """Names that the code of an answer is to define, as far as the problem says; others may be among them."""
    code = problem.code
    if code.entry_point:
        return (code.entry_point,)
    called = [name for test in code.tests for name in _CALLED.findall(test) if name not in _BUILTIN]
    if called:
        return tuple(dict.fromkeys(called))
    shown = [name for line in code.prelude.split("\n") for name in _DEFINES.findall(line) if line[:1] not in " \t"]
    named = [next(filter(None, match.groups())) for match in _NAMED.finditer(problem.question)]
    return tuple(dict.fromkeys([*shown[-1:], *named]))


def read_code(text: str, asked: Collection[str] = ()) -> str | None:
    """The code of a text, or None; linear, never raises.

    Args:
        asked: names that it is to define, where they are known; names that it need not define do no harm.
    """
    every = [block for block in _Scanner(text).blocks if block.content.strip()][-MAX_BLOCKS:]
    for part in sorted({block.part for block in every}, reverse=True):
        code = _chosen([block for block in every if block.part == part], frozenset(asked))
        if code is not None:
            return code
    if every:
        return None
    for span in reversed(_ONE_LINE.findall(text)):  # `def f(x): return x` in a sentence
        one = re.sub(r"^(?:python|py)[0-9.]*[ \t]+", "", span.strip())
        if _HEAD.match(one):
            return one
    return None


# ---------------------------------------------------------------- reading blocks


class _Quotes:
    """Follows line by line whether Python would be inside a text in three quotes or in brackets."""

    def __init__(self) -> None:
        self.open: str | None = None  # the quotes that the text began with
        self.depth = 0
        self.indent = 0  # of the line in which the text began
        self.broken = False  # whether a text in single quotes has no end on its line
        self.continued = False  # whether the line ends with a backslash

    def feed(self, line: str) -> str:
        """Go over a line; its code, without comments and without what stands in quotes, save in f-strings."""
        code = []
        at = 0
        self.broken = self.continued = False
        while at < len(line):
            if self.open is not None:
                for match in _IN_TEXT[self.open].finditer(line, at):
                    if match[0] == self.open:
                        self.open, at = None, match.end()
                        break
                else:
                    break
                continue
            match_ = _TOKEN.search(line, at)
            if match_ is None:
                code.append(line[at:])
                break
            token = match_[0]
            code.append(line[at : match_.start()])
            at = match_.end()
            if token == "#":
                break
            if token in ('"""', "'''"):
                self.open, self.indent = token, len(line) - len(line.lstrip())
            elif token == "\\":
                self.continued = at == len(line)
            elif token[0] in "\"'":
                self.broken = len(token) < 2 or token[-1] != token[0]
                inside = token if line[match_.start() - 1 : match_.start()] in ("f", "F") else token[0]
                code.append(f"{inside} ")
            else:
                self.depth = max(0, self.depth + (1 if token in "([{" else -1))
                code.append(token)
        return "".join(code)


class _Next:
    """Where something comes next in a text, asked for with growing positions: linear over all questions."""

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self._matches = pattern.finditer(text)
        self._at = -1
        self._end = len(text) + 1

    def after(self, position: int) -> int:
        """The first place from `position` on; beyond the text where there is none."""
        while self._at < position:
            match = next(self._matches, None)
            self._at = self._end if match is None else match.start()
        return self._at


@dataclass(slots=True)
class _Open:
    """A block whose end has not come yet."""

    language: str
    mark: str
    prefix: str
    lines: list[str] = field(default_factory=list)
    inner: list[bool] = field(default_factory=list)  # whether a line begins inside a text in three quotes
    fences: bool = False
    quotes: _Quotes = field(default_factory=_Quotes)


class _Scanner:
    """Reads the blocks of a text."""

    def __init__(self, text: str, depth: int = 0, part: int = 0) -> None:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if "PYTHON]" in text:
            text = _TAG.sub("\n\\g<0>\n", text)
        self.blocks: list[Block] = []
        self._depth = depth
        self._part = part
        self._prose: list[str] = []
        self._block: _Open | None = None
        self._at = 0
        self._ends = {delimiter: _Next(re.compile(delimiter), text) for delimiter in _IN_TEXT}
        self._openers = _Next(_OPENER, text)
        for line in text.split("\n"):
            end = self._at + len(line) + 1
            self._line(line)
            self._at = end
        if self._block is not None:
            self._close(closed=False)
        self._flush()

    def _line(self, line: str) -> None:
        if "</" in line or "[/" in line or "<|" in line or "◁" in line:
            line = self._after_thoughts(line)
        if self._block is None:
            self._outside(line)
        else:
            self._inside(self._block, line)

    def _after_thoughts(self, line: str) -> str:
        """What stands behind the last end of a thought in a line; those in a text of the program are none."""
        start, last_quote = 0, max(line.rfind("'"), line.rfind('"'))
        for match in _THOUGHT_END.finditer(line):
            before = line[start : match.start()]
            if self._block is not None:
                state = _Quotes()
                state.open = self._block.quotes.open
                state.feed(before)
                inside = state.open is not None and self._ends[state.open].after(self._at) < self._openers.after(
                    self._at
                )
                if inside or (state.broken and last_quote > match.start()):
                    break
                self._inside(self._block, before)
                self._close(closed=False)
            elif before.strip():
                self._prose.append(before)
            self._flush()
            self._part += 1
            start = match.end()
        return line[start:]

    def _outside(self, line: str) -> None:
        fence = _FENCE.match(line) if "```" in line or "~~~" in line or "PYTHON]" in line else None
        if fence is not None and "`" in fence["info"] and fence["mark"][0] == "`":
            fence = None  # code inside a sentence
        if fence is None and "```" in line:
            inline = _INLINE.search(line)
            if inline is not None and "`" not in line[: inline.start()] and _PYTHON.fullmatch(inline["info"].lower()):
                self._prose.append(line[: inline.start()])
                self._begin("", inline["mark"], inline["info"])
                return
        if fence is None:
            self._prose.append(line)
            return
        bare = not fence["info"].strip() or fence["mark"] == "[/PYTHON]"
        if bare and (fence["mark"] == "[/PYTHON]" or self._closes_code()):
            self._flush(closed=True)  # a fence that closes nothing: it ends the code before it
            return
        self._begin(fence["prefix"], fence["mark"], fence["info"])

    def _closes_code(self) -> bool:
        """Whether the lines before are code up to here, with more than heads of functions."""
        lines = _without_blank_ends(self._prose)
        if not lines or not lines[-1][:1].isspace():
            return False
        ending = next((line for line in reversed(lines) if line.strip() and not line[:1].isspace()), "")
        return bool(_CODE_LINE.match(ending))

    def _begin(self, prefix: str, mark: str, info: str) -> None:
        self._flush()
        language = _language("python" if mark == "[PYTHON]" else info)
        self._block = _Open(language, mark, prefix)

    def _inside(self, block: _Open, line: str) -> None:
        quoted = block.prefix.count(">")
        for _ in range(quoted):
            stripped = line.lstrip(" \t")
            if not stripped.startswith(">"):
                if stripped:  # the quotation is over
                    self._close()
                    self._outside(line)
                    return
                break
            line = stripped[1:]
        if quoted and block.prefix.endswith(" ") and line.startswith(" "):
            line = line[1:]
        marked = "```" in line or "~~~" in line or "PYTHON]" in line
        fence = _FENCE.match(line) if marked else None
        if fence is not None and not self._in_docstring(block, line):
            mark, info = fence["mark"], fence["info"].strip()
            if block.mark == "[PYTHON]":
                if mark == "[/PYTHON]":
                    self._close()
                    return
            elif mark[0] == block.mark[0] and len(mark) >= len(block.mark) and "`" not in info:
                self._close()
                named = _LANGUAGE.match(info)
                if named is not None and named["name"] and not named["rest"].strip(" \t}"):
                    self._begin(fence["prefix"], mark, info)
                elif info:
                    self._prose.append(info)
                return
            block.fences = True
        elif marked and fence is None and block.mark[0] == "`" and line.rstrip().endswith(block.mark):
            before = line.rstrip().rstrip("`")
            state = _Quotes()
            state.open = block.quotes.open
            state.feed(before)
            if "`" not in before and before.lstrip()[:1] != "#" and state.open is None and not state.broken:
                block.lines.append(before)
                block.inner.append(block.quotes.open is not None)
                self._close()
                return
        block.lines.append(line)
        block.inner.append(block.quotes.open is not None)
        if block.language in ("python", ""):
            block.quotes.feed(line)

    def _in_docstring(self, block: _Open, line: str) -> bool:
        """Whether a fence stands in a text in three quotes that has its end before the next block begins."""
        quotes = block.quotes
        if quotes.open is None:
            return False
        after = self._at + len(line)
        if self._ends[quotes.open].after(after) > self._openers.after(after):
            return False
        fence_indent = len(line) - len(line.lstrip())
        return fence_indent > len(block.prefix) or quotes.indent <= len(block.prefix)

    def _close(self, closed: bool = True) -> None:
        block, self._block = self._block, None
        if block is None:
            return
        nested = block.fences and block.language != "python" and closed
        longer = not closed and len(block.mark) > 3 and block.fences
        if (nested or longer) and self._depth < _DEPTH:
            text = "\n".join(block.lines)
            if longer:  # it was closed with fewer: read again with three
                text = f"```{block.language}\n{text}"
            inner = _Scanner(text, self._depth + 1, self._part).blocks
            fenced = [one for one in inner if one.language != "bare"]
            if fenced:
                self.blocks += fenced
                return
        lines = _outdented(block.lines, block.inner, len(block.prefix))
        if not closed:
            lines = _without_prose(lines, block.language)
        first = next((line for line in lines if line.strip()), "")
        if first.startswith(">>>"):
            lines = _session(lines)
        lines = _without_blank_ends(lines)
        language = block.language
        if not language and len(lines) > 1 and _PYTHON.fullmatch(lines[0].strip().lower()):
            language, lines = "python", _without_blank_ends(lines[1:])  # the word stands below the fence
        content = _seen("\n".join(lines))
        self.blocks.append(Block(language, content, closed, self._part))

    def _flush(self, closed: bool = False) -> None:
        """Take the code out of the sentences since the last block."""
        lines, self._prose = self._prose, []
        if any(line.startswith(">>> ") for line in lines):
            at = next(number for number, line in enumerate(lines) if line.startswith(">>> "))
            session = [line for line in lines[at:] if line.startswith((">>>", "..."))]
            self.blocks.append(Block("bare", "\n".join(_session(session)), closed, self._part))
            return
        first = not self.blocks or self.blocks[-1].part != self._part
        for piece in _bare(lines, first=first):
            self.blocks.append(Block("bare", piece, closed, self._part))


def _seen(code: str) -> str:
    """Without marks of byte order and spaces of no width, and with ordinary spaces at the beginning of lines."""
    return (
        code
        if code.isascii()
        else _UNSEEN.sub(lambda match: match[0].strip("\u200b\ufeff").replace("\u00a0", " "), code)
    )


def _language(info: str) -> str:
    """The language of a fence; "" where none is given."""
    match = _LANGUAGE.match(info)
    name = (match["name"] or "" if match else "").strip("{.}").lower()
    return "python" if _PYTHON.fullmatch(re.split(r"[:,;]", name)[0]) else name


def _outdented(lines: Sequence[str], inner: Sequence[bool], width: int) -> list[str]:
    """The lines moved to the left by at most `width`, or wholly where they are indented definitions."""
    outer = [line for line, inside in zip(lines, inner, strict=True) if not inside and line.strip()]
    margin = min((len(line) - len(line.lstrip(" \t")) for line in outer), default=0)
    if margin and not (outer and _HEAD.match(outer[0].lstrip(" \t"))):
        margin = min(margin, width)
    if not margin:
        return list(lines)
    return [line[margin:] if not line[:margin].strip(" \t") else line.lstrip(" \t") for line in lines]


def _session(lines: Sequence[str]) -> list[str]:
    """The input of a session with Python."""
    code = []
    for line in lines:
        if line.startswith((">>>", "...")):
            code.append(line[4:] if line[3:4] == " " else line[3:])
    return code


def _without_blank_ends(lines: Sequence[str]) -> list[str]:
    start, end = 0, len(lines)
    while start < end and not lines[start].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return list(lines[start:end])


def _without_prose(lines: list[str], language: str) -> list[str]:
    """The lines of a block that was never closed, up to where sentences begin."""
    if language not in ("python", ""):
        return lines
    end, quotes, defined = len(lines), _Quotes(), False
    for number, line in enumerate(lines):
        inside = quotes.open is not None or quotes.depth or quotes.continued
        top = bool(line.strip()) and not line[0].isspace() and not inside
        if top and defined and not _CODE_LINE.match(line):
            end = number
            break
        defined = defined or (top and _HEAD.match(line) is not None)
        quotes.feed(line)
    return lines[:end]


def _bare(lines: Sequence[str], *, first: bool) -> Iterator[str]:
    """Pieces of code between sentences; at the very beginning also a body without its head."""
    piece: list[str] = []
    quotes = _Quotes()
    begun = body = False
    started = not first
    for line in lines:
        blank = not line.strip()
        if begun:
            inside = quotes.open is not None or quotes.depth or quotes.continued
            if blank or inside or line[0] in " \t" or _CODE_LINE.match(line):
                piece.append(line)
                quotes.feed(line)
                continue
            yield from _piece(piece, body)
            piece, begun, body = [], False, False
        if blank:
            continue
        indented_body = not started and line[0] in " \t"
        if _HEAD.match(line) or indented_body or (not started and _CODE_LINE.match(line)):
            piece, begun, body, quotes = [line], True, indented_body, _Quotes()
            quotes.feed(line)
        started = True
    if begun:
        yield from _piece(piece, body)


def _piece(lines: list[str], body: bool) -> Iterator[str]:
    lines = _without_blank_ends(lines)
    if body and not any(map(_BODY.match, lines)):
        return
    if any(_HEAD.match(line) or _BODY.match(line) or _ONE_EXPRESSION.match(line) for line in lines):
        yield "\n".join(lines)


# ---------------------------------------------------------------- choosing


@dataclass(slots=True)
class _Statement:
    """A statement at the left margin, with all that is indented below it."""

    lines: list[str]
    defines: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()
    kind: str = ""  # "def" (or class), "import", "assign", "future", or another
    star: bool = False
    stub: bool = False


@dataclass(slots=True)
class _Code:
    """A block as far as its names go."""

    block: Block
    statements: list[_Statement]
    bound: frozenset[str]

    @property
    def defines(self) -> frozenset[str]:
        """Names at the left margin, functions that have no body yet left out."""
        return frozenset().union(*(one.defines for one in self.statements if not one.stub))

    @property
    def functions(self) -> frozenset[str]:
        return frozenset().union(*(one.defines for one in self.statements if one.kind == "def"))

    @property
    def uses(self) -> frozenset[str]:
        return frozenset().union(*(one.uses for one in self.statements))

    @property
    def testing(self) -> bool:
        """Whether it tests or shows what another block defines."""
        if _TEST_TOOLS.search(self.block.content):
            return True
        return bool(self.functions) and all(map(_TESTING.fullmatch, self.functions))


def _chosen(every: Sequence[Block], asked: frozenset[str]) -> str | None:
    """The code among the blocks of one part."""
    codes = [_analysed(block) for block in every if block.language in ("python", "", "bare")]
    best: _Code | None = None
    rank: tuple[int, ...] = ()
    for code in codes:  # the last of the best
        mine = _rank(code, asked)
        if best is None or mine >= rank:
            best, rank = code, mine
    weak = best is None or (best.block.language == "" and not best.functions)
    others = [block for block in every if block.language not in ("python", "", "bare")]
    if weak:
        for block in reversed(others):  # a fence with another word behind it
            if any(map(_HEAD.match, block.content.split("\n"))):
                best = _analysed(block)
                break
    if best is None:
        return others[-1].content if others else None
    return _completed(best, codes, asked)


def _rank(code: _Code, asked: frozenset[str]) -> tuple[int, ...]:
    """How likely a block is the answer; the larger the likelier."""
    language = {"python": 2, "": 1}.get(code.block.language, 0)
    body = any(map(_BODY.match, code.block.content.split("\n")[:1])) or code.block.content[:1] in (" ", "\t")
    defined = code.defines
    right = len(asked & defined)
    real = any(one.kind == "def" and not one.stub for one in code.statements)
    solves = 3 if right else 2 if body else 1 if real or code.functions else 0
    fenced = int(language > 0)
    whole = int(code.block.closed)
    proper = int(not code.testing) + int(real)
    return (solves, fenced, proper, whole, language if not solves or code.testing else 0, right, language)


def _analysed(block: Block) -> _Code:
    """The statements of a block and its names."""
    statements: list[_Statement] = []
    texts: list[list[str]] = []
    quotes = _Quotes()
    attach = False
    for line in block.content.split("\n"):
        inside = quotes.open is not None or quotes.depth or quotes.continued
        code = quotes.feed(line)
        begins = bool(line.strip()) and not inside and line[0] not in " \t" and not attach
        if (begins and not _FOLLOWS.match(line)) or not statements:
            statements.append(_Statement([]))
            texts.append([])
        statements[-1].lines.append(line)
        texts[-1].append(code)
        if not inside and line.strip() and line[0] not in " \t":
            attach = line[0] in "@#" and (attach or begins or not statements[-1].lines[:-1])
    bound: set[str] = set()
    for statement, codes in zip(statements, texts, strict=True):
        _name(statement, codes)
        for match in _BOUND.finditer(" \n".join(codes)):
            for group in match.groups():
                if group:
                    bound.update(_WORD.findall(re.sub(r"[:=][^,]*", "", group) if match[1] else group))
    return _Code(block, statements, frozenset(bound))


def _name(statement: _Statement, codes: Sequence[str]) -> None:
    """Say what a statement defines and uses."""
    head = next((code for code in codes if code.strip() and code[0] not in "@ \t"), "")
    text = "\n".join(codes)
    statement.uses = frozenset(_WORD.findall(text))
    if _FUTURE.match(head):
        statement.kind = "future"
    elif defined := _DEFINES.match(head):
        statement.kind, statement.defines = "def", frozenset([defined[1]])
        below = [code.strip() for code in codes[codes.index(head) + 1 :] if code.strip()]
        if not below:
            below = [part for part in [head.rpartition("):")[2].strip()] if part]
        statement.stub = not head.startswith("class") and all(map(_STUB.fullmatch, below))
    elif imported := _IMPORTS.match(text[text.index(head) :] if head else ""):
        statement.kind = "import"
        names = [one.split(" as ")[-1].strip(" ()\n\\").partition(".")[0] for one in imported[2].split(",")]
        statement.defines = frozenset(name for name in names if name.isidentifier())
        statement.star = "*" in imported[2]
    elif assigned := _ASSIGNS.match(head):
        statement.kind, statement.defines = "assign", frozenset(_WORD.findall(assigned[1]))


def _completed(chosen: _Code, codes: Sequence[_Code], asked: frozenset[str]) -> str:
    """The chosen block with what it needs of the others before it."""
    own = frozenset().union(*(one.defines for one in chosen.statements))
    needed = ((chosen.uses - chosen.bound) | asked) - own - _BUILTIN
    place = next((number for number, code in enumerate(codes) if code is chosen), len(codes))
    where: dict[str, tuple[int, int]] = {}
    order = [*range(len(codes) - 1, place, -1), *range(place)]  # what comes before wins, the nearest first
    for number in order:
        if codes[number] is chosen or (codes[number].testing and codes[number].block.language != "python"):
            continue
        for at, statement in enumerate(codes[number].statements):
            takes = statement.kind in ("def", "import") or (statement.kind == "assign" and not statement.uses & own)
            if takes and not statement.stub:
                where.update(dict.fromkeys(statement.defines, (number, at)))
    taken: set[tuple[int, int]] = set()
    waiting = [name for name in needed if name in where]
    while waiting:
        spot = where[waiting.pop()]
        if spot not in taken:
            taken.add(spot)
            more = codes[spot[0]].statements[spot[1]]
            waiting += [name for name in more.uses - own - _BUILTIN if name in where]
    if needed - where.keys():
        taken |= {
            (number, at)
            for number, code in enumerate(codes) if code is not chosen
            for at, statement in enumerate(code.statements) if statement.star
        }  # fmt: skip
    if not taken:
        return chosen.block.content
    future = [one for one in chosen.statements if one.kind == "future"]
    rest = [one for one in chosen.statements if one.kind != "future"] if future else chosen.statements
    pieces = [codes[number].statements[at] for number, at in sorted(taken)]
    lines = [line for one in (*future, *pieces) for line in _without_blank_ends(one.lines)]
    return "\n".join([*lines, "", *(line for one in rest for line in one.lines)])
