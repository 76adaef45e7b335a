"""Math as people write it, cut into tokens: LaTeX, plain text and the characters of Unicode in one alphabet."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


def word_set(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


class NotUnderstoodError(ValueError):
    """A text that is no math of the kind that is known here; it is compared as text."""


class Token(NamedTuple):
    """One piece of math.

    Args:
        kind: "num", "var", "word", "fn", "const", "op" or "cmd" (a command with arguments).
        text: its name.
        value: of a number.
        spaced: whether white space stands before it.
        upright: whether it stands in `\\text{...}` or another upright font.
    """

    kind: str
    text: str
    value: Fraction = Fraction(0)
    spaced: bool = False
    upright: bool = False


MAX_MATH = 400


FUNCTIONS = word_set(
    "sin cos tan cot sec csc arcsin arccos arctan asin acos atan sinh cosh tanh ln log lg exp sqrt cbrt max min gcd lcm"
    " abs floor ceil"
)


_GREEK = word_set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon"
    " phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell"
)


_PLAIN_GREEK = word_set("alpha beta gamma delta theta lambda sigma omega phi")


_CONSTANTS = {"pi": "pi", "Pi": "pi", "infty": "oo", "infinity": "oo", "Infinity": "oo", "inf": "oo", "oo": "oo"}


_OPERATORS = {
    "cdot": "*", "times": "*", "ast": "*", "bullet": "*", "div": "/", "pm": "+-", "mp": "-+", "le": "<=", "leq": "<=",
    "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=",
    "approx": "~=", "simeq": "~=", "in": "in", "cup": "u", "land": "and", "wedge": "and", "lor": "or", "vee": "or",
    "colon": ":", "lbrace": "\\{", "rbrace": "\\}", "{": "\\{", "}": "\\}", "lvert": "|", "rvert": "|", "vert": "|",
    "mid": "|", "lfloor": "lfloor", "rfloor": "rfloor", "lceil": "lceil", "rceil": "rceil", "langle": "(",
    "rangle": ")", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "%": "%", "$": "$", "circ": "deg",
    "degree": "deg", "choose": "choose", "prime": "'", "\\": "\\\\", "&": "&", "emptyset": "{}", "varnothing": "{}",
    "|": "|",
}  # fmt: skip


_COMMANDS = {"frac": "frac", "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "sqrt": "sqrt",
             "binom": "binom", "dbinom": "binom", "tbinom": "binom"}  # fmt: skip


_SKIPPED = word_set(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits quad qquad"
    " mathstrut strut nolimits hspace , ! ; : > ( ) [ ]") | {" "}  # fmt: skip


UPRIGHT = word_set("text textbf textit textrm textsf texttt textnormal mathrm mbox operatorname mathsf")


_BOLD = word_set("mathbf boldsymbol bm mathit mathnormal boxed fbox framebox")


SHORT_WORDS = word_set(
    """in ft yd mi mm cm dm km nm kg mg lb lbs oz ml dl kl hr hrs sec min mins mph kph kmh am pm cal gal pt qt usd eur
    gbp bn mln k no yes is it so to of or if an as at by be we he on do the and for not per all any one two but are was
    has out our you can men man boy boys day days egg eggs cup cups pen pens car cars dog dogs cat cats hat hats bag
    bags box jar jars bus toy toys pie pies cow cows hen hens pig pigs ant bee bees way ways hour row rows mile lot set
    bit pair kid kids job jobs game ball unit sq hz kw mw kpa atm mol rpm dot odd even ten six via each red min max
    cans nut nuts can age rad deg gram ton tons year inch foot feet yard meter"""
)


_GREEK_IN_ORDER = (
    "theta", "alpha", "beta", "gamma", "delta", "epsilon", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "phi",
    "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega",
)  # fmt: skip


_FOLDED = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "―": "-", "﹣": "-", "－": "-", "⁄": "/", "∕": "/",
    "÷": "/", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "∗": "*",
    "✕": r"\times ",
    "π": r"\pi ", "Π": r"\Pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "≃": r"\approx ", "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ",
    "º": r"^\circ ", "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "∅": r"\emptyset ", "∧": r"\land ",
    "∨": r"\lor ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "′": "'", "’": "'", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∶": ":", "：": ":",
    "⟨": r"\langle ", "⟩": r"\rangle ", "∣": "|", "\u066b": ".", "\u066c": ",", "\u2062": "", "\u2061": "",
    "\u200b": "", "\ufeff": "", "\u00ad": "", "\x00": "", "¢": r"\text{ cents}", "∘": r"\circ ", "ℓ": r"\ell ",
    "，": ", ", "、": ", ", "；": ";",
    **dict(zip("θαβγδελμνξρστφχψωΓΔΘΛΞΣΦΨΩ", [
        f"\\{name} " for name in _GREEK_IN_ORDER
    ], strict=True)),
}  # fmt: skip


_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ", "0123456789+-nix", strict=True))


_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉ₙₓ", "0123456789nx", strict=True))


class _Narrow(dict[int, str]):
    """A table for str.translate: characters that stand for one character of ASCII, as that one."""

    def __missing__(self, code: int) -> str:
        one = _character(chr(code)) if code >= 128 else chr(code)
        self[code] = narrow = one if len(one) == 1 else chr(code)
        return narrow


_NARROW = _Narrow()


def narrowed(text: str) -> str:
    """The text with digits, letters and signs of full width or other scripts in ASCII; as long as before, linear."""
    return text if text.isascii() else text.translate(_NARROW)


_SHIFTED = re.compile(f"[{''.join(_RAISED)}]+|[{''.join(_LOWERED)}]+")


def _character(character: str) -> str:
    if character in _FOLDED:
        return _FOLDED[character]
    if character in _RAISED or character in _LOWERED:
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    kind = unicodedata.category(character)
    if kind == "Zs":
        return "\u00a0" if character in "\u00a0\u202f\u2009\u2007\u2008\u200a" else " "
    name = unicodedata.name(character, "")
    if name.startswith("VULGAR FRACTION") and unicodedata.numeric(character, -1) >= 0:
        top, bottom = unicodedata.normalize("NFKC", character).split("\u2044")
        return rf"\frac{{{top}}}{{{bottom or 1}}}" if bottom else character
    if name.startswith(("FULLWIDTH", "MATHEMATICAL")) or character in "ℯℰℊℎℐℓ":
        wide = unicodedata.normalize("NFKC", character)
        return wide if len(wide) == 1 and wide.isascii() else _FOLDED.get(wide, character)
    return character


class _Characters(dict[int, str]):
    """A table for str.translate that is filled as characters come."""

    def __missing__(self, code: int) -> str:
        self[code] = folded = chr(code) if code < 128 else _character(chr(code))
        return folded


_CHARACTERS = _Characters({0: ""})


def _shifted(match: re.Match[str]) -> str:
    run = match[0]
    if run[0] in _RAISED:
        return "^{" + "".join(_RAISED[one] for one in run) + "}"
    return "_{" + "".join(_LOWERED[one] for one in run) + "}"


_KNOWN = "|".join(
    sorted(
        {*_OPERATORS, *_COMMANDS, *UPRIGHT, *_BOLD, *FUNCTIONS, *_GREEK, "left", "right", "pi", "infty", "overline",
         "begin", "end", "quad", "bar", "dot"} - {"{", "}", "%", "$", "\\", "&", "|"}, key=len, reverse=True
    )
)  # fmt: skip


_DOUBLED = re.compile(rf"(?<!\\)\\\\(?=(?:{_KNOWN})(?![A-Za-z]))")


_SPACE = r"(?:[ \u00a0~]|\\[,;:>! ])"


_SPACED_THOUSANDS = re.compile(
    rf"(?<![0-9.,/^_\\])(?<![0-9][ ~\u00a0])([1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+)(?![0-9])"
    rf"(?!\s*/)(?!{_SPACE}?[0-9])"
)


_LATEX_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|,\s*\\!|\\,)\s*(?=[0-9]{3}(?![0-9]))")


_DECIMAL_COMMA = re.compile(r"(?<![0-9.,}])([0-9]+)\{,\}([0-9]+)(?![0-9]|\{,\}|[.,][0-9])")


_LOG_BASE = re.compile(
    r"\\?\blog(?:arithm)?,? (?:to (?:the )?)?base[ -]?([0-9]{1,4}|[a-z]) of ([0-9]{1,40}|[a-z])(?![0-9A-Za-z.,/^*+!])",
    re.IGNORECASE,
)


_ORDINAL = re.compile(r"(?<![0-9A-Za-z.,/^_])([0-9]{1,12})(?:\^\{?(?:st|nd|rd|th)\}?|(?:st|nd|rd|th))(?![A-Za-z0-9])")


_INDIAN_THOUSANDS = re.compile(r"(?<![0-9A-Za-z.,])[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?![0-9]|,[0-9])")


_SWISS_THOUSANDS = re.compile(r"(?<![0-9A-Za-z.'])[1-9][0-9]{0,2}(?:'[0-9]{3})+(?![0-9'])")


def folded(text: str) -> str:
    """The text in ASCII as far as math goes: digits, signs, fractions, superscripts and Greek of all usual kinds."""
    if not text.isascii():
        text = re.sub(r"((?:[0-9]\u0305)+|(?:[0-9]\u0304)+)", lambda m: rf"\overline{{{m[1][::2]}}}", text)
        text = re.sub(r"([0-9])\u0307", r"\\dot{\1}", text)
        text = _SHIFTED.sub(_shifted, text).translate(_CHARACTERS)
    elif "\x00" in text:
        text = text.replace("\x00", "")
    if "\\\\" in text:
        text = _DOUBLED.sub(r"\\", text)
    return text


def _indian(match: re.Match[str]) -> str:
    """1,00,000 without its commas; 10,20,300 may be a list, and 1,00,000 cannot."""
    return match[0].replace(",", "") if re.search(r",0[0-9](?=,)", match[0]) else match[0]


def ungrouped(text: str) -> str:
    """Without the spaces and LaTeX commas between thousands: `10 000`, `10\\,000` and `10{,}000` are `10000`."""
    text = _LATEX_THOUSANDS.sub("", text)
    if "{,}" in text:  # 3{,}5 is 3.5; a list has no braces around its commas
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    if "," in text:
        text = _INDIAN_THOUSANDS.sub(_indian, text)
    if "'" in text:
        text = _SWISS_THOUSANDS.sub(lambda match: match[0].replace("'", ""), text)
    return _SPACED_THOUSANDS.sub(lambda match: re.sub(_SPACE, "", match[1]), text)


_TOKEN = re.compile(
    r"""(?P<space>[\s~]+)
    |(?P<rep>(?P<rwhole>[0-9]*)\.(?P<rfirst>[0-9]*)
       (?: \\(?:overline|bar)\s*(?:\{(?P<r1>[0-9]+)\}|(?P<r2>[0-9])) | \((?P<r3>[0-9]+)\)
         | \\dot\s*\{?(?P<d1>[0-9])\}?(?:(?P<dm>[0-9]*)\\dot\s*\{?(?P<d2>[0-9])\}?)? )
       (?:\\l?dots(?![A-Za-z])|\.\.\.)? )
    |(?P<power>[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]{1,3}(?![A-Za-z0-9.]))
    |(?P<grouped>(?<![0-9],)[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])(?!,[0-9])(?:\.[0-9]+)?)
    |(?P<num>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)
    |(?P<env>\\(?:begin|end)\s*\{[a-zA-Z*]{1,20}\}(?:\{[lcr|]{0,20}\})?)
    |\\(?P<command>[A-Za-z]+\*?|.)
    |(?P<letters>[A-Za-z]+)
    |(?P<op>\*\*|<=|>=|!=|≤|≥|[-+*/^_=<>(){}\[\]|,;:!'%$&])""",
    re.VERBOSE | re.DOTALL,
)


def repeating(whole: str, first: str, again: str) -> Fraction:
    """The value of whole.first(again)(again)..., as in 0.1(6)."""
    start = Fraction(int((whole or "0") + first), 10 ** len(first))
    return start + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(first))


def tokens(text: str, upright: bool = False, level: int = 0) -> list[Token]:
    """The tokens of a folded text; raises NotUnderstoodError on what is not known. Linear in the text."""
    out: list[Token] = []
    place, spaced, depth = 0, False, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotUnderstoodError(text[place])
        place = match.end()
        kind = match.lastgroup
        if kind == "space" or match["space"]:
            spaced = True
            continue
        start = len(out)
        if match["rep"]:
            again = match["r1"] or match["r2"] or match["r3"]
            if again is None:
                again = match["d1"] + ((match["dm"] or "") + match["d2"] if match["d2"] else "")
            out.append(Token("num", "", repeating(match["rwhole"], match["rfirst"], again), spaced, upright))
        elif match["power"]:
            out.append(Token("num", "", Fraction(match["power"]), spaced, upright))
        elif match["grouped"] and depth == 0:
            out.append(Token("num", "", Fraction(match["grouped"].replace(",", "")), spaced, upright))
        elif match["grouped"] or match["num"]:
            digits = match["num"]
            if digits is None:  # a comma within brackets separates
                digits = re.match(r"[0-9]+", match["grouped"])[0]  # type: ignore[index]
                place = match.start() + len(digits)
            if len(digits) > 1 and digits[0] == "0" and digits[1] != "." and out and out[-1][:2] == ("op", ","):
                raise NotUnderstoodError("a number that begins with 0 behind a comma")
            out.append(Token("num", digits, Fraction(digits), spaced, upright))
        elif match["env"]:
            out.append(Token("cmd", re.sub(r"\s+|\{[lcr|]*\}$", "", match["env"]), Fraction(0), spaced))
        elif match["command"]:
            place = _command(match["command"], text, place, out, spaced, upright, level)
        elif match["letters"]:
            out.extend(_letters(match["letters"], spaced, upright))
        else:
            name = {"**": "^", "≤": "<=", "≥": ">="}.get(match["op"], match["op"])
            out.append(Token("op", name, Fraction(0), spaced))
        for token in out[start:]:
            if token.kind == "op":
                depth += (token.text in ("(", "[", "\\{")) - (token.text in (")", "]", "\\}"))
        spaced = len(out) == start and spaced
    return out


def _command(name: str, text: str, place: int, out: list[Token], spaced: bool, upright: bool, level: int) -> int:
    """Tokens of a command; returns where to read on."""
    name = name.rstrip("*")
    if name in UPRIGHT or name in _BOLD or name == "mathbb" or name == "mathcal":
        inside, place = group(text, place)
        if level >= 4:
            raise NotUnderstoodError("deeply nested")
        if name.startswith("mathbb") or name == "mathcal":
            out.append(Token("var", inside.strip() + name[4:], Fraction(0), spaced))
        elif name in _BOLD:
            inner = tokens(inside, upright, level + 1)
            simple = len(inner) == 1
            out.extend([*inner] if simple else [Token("op", "{"), *inner, Token("op", "}")])
        else:
            inside = re.sub(r"\$", "", inside)
            out.extend(tokens(inside, True, level + 1))
    elif name in _SKIPPED:
        if text[place : place + 1] == "." and name in ("left", "right"):
            place += 1
    elif name in _OPERATORS:
        out.append(Token("op", _OPERATORS[name], Fraction(0), spaced))
    elif name in _COMMANDS:
        out.append(Token("cmd", _COMMANDS[name], Fraction(0), spaced))
    elif name in _CONSTANTS:
        out.append(Token("const", _CONSTANTS[name], Fraction(0), spaced))
    elif name in FUNCTIONS:
        out.append(Token("fn", name, Fraction(0), spaced))
    elif name in _GREEK:
        out.append(Token("var", name, Fraction(0), spaced))
    else:
        raise NotUnderstoodError(name)
    return place


def group(text: str, place: int) -> tuple[str, int]:
    """What stands in braces at `place`, or the one character there, and the place behind it."""
    while text[place : place + 1].isspace():
        place += 1
    if text[place : place + 1] != "{":
        if place >= len(text) or text[place] in "\\}^_":
            raise NotUnderstoodError("a command without its argument")
        return text[place], place + 1
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, place):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0:
            return text[place + 1 : match.start()], match.end()
    raise NotUnderstoodError("a brace that is not closed")


def _letters(run: str, spaced: bool, upright: bool) -> list[Token]:
    """A run of letters: a function, a constant, a word, or a product of one-letter variables."""

    def token(kind: str, text: str, first: bool = True) -> Token:
        return Token(kind, text, Fraction(0), spaced and first, upright)

    if run in FUNCTIONS and not (upright and run in ("min", "abs", "sec")):
        return [token("fn", run)]
    if run in _CONSTANTS:
        return [token("const", _CONSTANTS[run])]
    if run.lower() in ("and", "or"):
        return [token("op", run.lower())]
    if len(run) == 1:
        if upright and run not in "eixyz":
            return [token("word", run)]
        return [token("var", run)]
    if run in _PLAIN_GREEK:
        return [token("var", run)]
    if run == "U" or upright:
        return [token("word", run)]
    for name in ("arcsin", "arccos", "arctan", "sqrt", "sin", "cos", "tan", "log", "exp", "ln", "pi", "theta"):
        # "xsin", "cosx", "2pir": a name that is known with a variable on one side
        if name in run and len(run) - len(name) <= (2 if name != "exp" else 1):
            before, _, after = run.partition(name)
            if (before + after).lower() in ("g", "e", "us", "ed", "s", "n", "a", "k"):
                continue
            whole = "fn" if name in FUNCTIONS else ("const" if name == "pi" else "var")
            kinds = [("var", one) for one in before] + [(whole, name)] + [("var", one) for one in after]
            return [token(kind, one, place == 0) for place, (kind, one) in enumerate(kinds)]
    if len(run) > 3 or run.lower() in SHORT_WORDS:
        return [token("word", run)]
    return [token("var", one, place == 0) for place, one in enumerate(run)]


@lru_cache(maxsize=1 << 12)
def folded_math(text: str) -> str:
    """Folded and without grouped thousands."""
    if "log" in text and "base" in text:
        text = _LOG_BASE.sub(r"\\log_{\1}{\2}", text)
    text = ungrouped(folded(text)).replace("+/-", r"\pm ")
    return _ORDINAL.sub(r"\1", text)
