"""From tokens to a tree: what an expression, a list, an interval, an equation is; what is ambiguous is refused."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from outthink.answers.notation import NotUnderstoodError, Token

MAX_DEPTH = 40


class Expression(NamedTuple):
    """A piece of math.

    Args:
        op: "num", "var", "const" (pi, e, i, oo), "add", "mul", "div", "pow", "neg", "fn", "root", "fact", "abs", "deg",
            "pm", "binom", "apply", "paren"; or of several: "list", "tuple", "set", "union", "rel", "matrix", "ratio".
        parts: what it is made of.
        name: of a variable, constant or function; the brackets of a tuple; the relations of a "rel".
        value: of a number.
    """

    op: str
    parts: tuple[Expression, ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)


RELATIONS = frozenset(("=", "<", ">", "<=", ">=", "!=", "~=", "in"))


def number(value: Fraction | int) -> Expression:
    """A number as a tree."""
    return Expression("num", (), "", Fraction(value))


def tree(pieces: list[Token]) -> Expression:
    """The tree of a whole answer; raises NotUnderstoodError. Linear in the tokens, at most 40 deep."""
    parser = _Parser(pieces)
    node = parser.items(())
    if parser.place < len(pieces):
        raise NotUnderstoodError(pieces[parser.place].text)
    return node


def _leads_with_d(node: Expression) -> bool:
    """Whether the first factor is a d, as in dy."""
    while node.op in ("paren", "mul", "pow"):
        node = node.parts[0]
    return node.op == "var" and node.name == "d"


class _Parser:
    def __init__(self, pieces: list[Token]) -> None:
        self.pieces = pieces
        self.place = 0
        self.depth = 0
        self.bars = 0  # open |
        self.outward = 0  # open ]a, b[, in which [ ends

    # -- looking at tokens

    def peek(self, ahead: int = 0) -> Token | None:
        place = self.place + ahead
        return self.pieces[place] if place < len(self.pieces) else None

    def at(self, *texts: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind == "op" and token.text in texts

    def take(self, *texts: str) -> bool:
        if self.at(*texts):
            self.place += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise NotUnderstoodError(f"no {text}")

    def down(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotUnderstoodError("too deep")

    # -- several

    def items(self, closing: tuple[str, ...]) -> Expression:
        """Elements between commas, "and" and "or", up to one of the closing tokens, which is not taken."""
        self.down()
        parts = [self.element()]
        ors = 0
        while True:
            separated = False
            while self.at(",", ";", "and", "or"):
                ors += self.at("or")
                self.place += 1
                separated = True
            if not separated or self.peek() is None or self.at(*closing):
                break
            parts.append(self.element())
        self.depth -= 1
        return parts[0] if len(parts) == 1 and not ors else Expression("list", tuple(parts), "or" if ors else "")

    def element(self) -> Expression:
        """One member of a list: expressions with relations between them."""
        applied = self.applied()
        parts = [applied if applied is not None else self.union()]
        names = []
        while (token := self.peek()) is not None and token.kind == "op" and token.text in RELATIONS:
            self.place += 1
            names.append(token.text)
            parts.append(self.union())
        if self.at(":"):
            while self.take(":"):
                parts.append(self.additive())
            if names or len(parts) > 6:
                raise NotUnderstoodError("a colon")
            return Expression("ratio", tuple(parts))
        return Expression("rel", tuple(parts), " ".join(names)) if names else parts[0]

    def applied(self) -> Expression | None:
        """The left side of `f(x) = ...`, where that stands here."""
        start = self.place
        head = self.peek()
        if head is None or head.kind != "var" or not self.at("(", ahead=1):
            return None
        place = start + 2
        names: list[str] = []
        while place + 1 < len(self.pieces) and self.pieces[place].kind in ("var", "num") and len(names) < 4:
            names.append(self.pieces[place].text or str(self.pieces[place].value))
            place += 1
            if self.pieces[place][:2] != ("op", ","):
                break
            place += 1
        closed = place + 1 < len(self.pieces) and self.pieces[place][:2] == ("op", ")")
        if not names or not closed or self.pieces[place + 1][:2] != ("op", "="):
            return None
        self.place = place + 1
        return Expression("apply", (), f"{head.text}({','.join(names)})")

    def union(self) -> Expression:
        parts = [self.additive()]
        while self.at("u") or (self.peek() is not None and self.peek()[:2] == ("word", "U")):  # type: ignore[index]
            self.place += 1
            parts.append(self.additive())
        return parts[0] if len(parts) == 1 else Expression("union", tuple(parts))

    # -- expressions

    def additive(self) -> Expression:
        self.down()
        parts = [self.signed()]
        while self.at("+", "-", "+-", "-+"):
            token = self.pieces[self.place]
            self.place += 1
            part = self.product()
            if token.text == "-":
                part = Expression("neg", (part,))
            elif token.text != "+":
                part = Expression("pm", (part,), token.text)
            parts.append(part)
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Expression("add", tuple(parts))

    def signed(self) -> Expression:
        if self.at("-"):
            self.place += 1
            self.down()
            part = Expression("neg", (self.signed(),))
            self.depth -= 1
            return part
        if self.take("+"):
            return self.product()
        if self.at("+-", "-+"):
            name = self.pieces[self.place].text
            self.place += 1
            return Expression("pm", (self.product(),), name)
        return self.product()

    def product(self) -> Expression:
        """Factors, with signs of multiplication or none between them."""
        left = self.power()
        while True:
            token = self.peek()
            if token is None:
                return left
            if self.at("*"):
                self.place += 1
                left = Expression("mul", (left, self.unary()))
            elif self.at("/"):
                self.place += 1
                over = self.unary()
                follower = self.peek()
                if follower is not None and self.starts(follower):
                    # 1/2x is (1/2)x as everywhere, but 1/xy and 1/2pi mean different things to different people
                    plain = left.op == over.op == "num" and (follower.kind == "var" or self.at("("))
                    if not plain:
                        raise NotUnderstoodError("a product behind a slash")
                left = Expression("div", (left, over))
            elif self.starts(token):
                if token.kind == "num":
                    raise NotUnderstoodError("a number behind a factor")
                left = Expression("mul", (left, self.power()))
            else:
                return left

    def unary(self) -> Expression:
        if self.at("-", "+"):
            negative = self.at("-")
            self.place += 1
            part = self.power()
            return Expression("neg", (part,)) if negative else part
        return self.power()

    def starts(self, token: Token) -> bool:
        """Whether a factor can begin here."""
        if token.kind in ("num", "var", "const", "fn", "word"):
            return token[:2] != ("word", "U")
        if token.kind == "cmd":
            return not token.text.startswith("\\end")
        if token.text == "[":
            return not self.outward
        return token.text in ("(", "{", "lfloor", "lceil") or (token.text == "|" and not self.bars)

    def power(self) -> Expression:
        self.down()
        base = self.postfix(self.primary())
        if self.take("^"):
            base = self.raised(base)
        self.depth -= 1
        return base

    def raised(self, base: Expression) -> Expression:
        """base^..., behind the ^."""
        if self.at("deg"):
            self.place += 1
            return Expression("deg", (base,))
        if self.at("{") and self.at("deg", ahead=1) and self.at("}", ahead=2):
            self.place += 3
            return Expression("deg", (base,))
        if self.take("'"):
            return Expression("var", (), base.name + "'") if base.op == "var" else self.refuse("a prime")
        exponent = self.exponent()
        if self.at("^"):
            raise NotUnderstoodError("a power of a power without brackets")
        return self.postfix(Expression("pow", (base, exponent)))

    def exponent(self) -> Expression:
        if self.at("-", "+"):
            negative = self.at("-")
            self.place += 1
            part = self.exponent()
            return Expression("neg", (part,)) if negative else part
        exponent = self.primary()
        if self.at("!"):
            raise NotUnderstoodError("a factorial of an exponent without brackets")
        if self.take("^"):  # a tower, from the right
            self.down()
            exponent = Expression("pow", (exponent, self.exponent()))
            self.depth -= 1
        return exponent

    def refuse(self, why: str) -> Expression:
        raise NotUnderstoodError(why)

    def postfix(self, node: Expression) -> Expression:
        if self.at("!"):
            self.place += 1
            if self.at("!"):
                raise NotUnderstoodError("a double factorial")
            node = Expression("fact", (node,))
        if self.take("'"):
            node = Expression("var", (), node.name + "'") if node.op == "var" else self.refuse("a prime")
        if self.take("deg"):
            node = Expression("deg", (node,))
        return node

    def primary(self) -> Expression:
        token = self.peek()
        if token is None:
            raise NotUnderstoodError("an end")
        self.place += 1
        if token.kind == "num":
            return self.mixed(token)
        if token.kind == "const":
            return Expression("const", (), token.text)
        if token.kind == "word" and len(token.text) == 1:
            return self.variable(token)
        if token.kind == "var":
            return self.variable(token)
        if token.kind == "fn":
            return self.function(token.text)
        if token.kind == "cmd":
            return self.command(token.text)
        if token.kind == "op":
            if token.text in ("(", "["):
                return self.bracket(token.text)
            if token.text == "]":  # ]a, b[
                return self.bracket("]")
            if token.text == "{":
                return self.braces()
            if token.text == "\\{":
                return self.members()
            if token.text == "{}":
                return Expression("set")
            if token.text == "|" and not self.bars:
                self.bars += 1
                inside = self.additive()
                self.bars -= 1
                self.expect("|")
                return Expression("abs", (inside,))
            if token.text in ("lfloor", "lceil"):
                inside = self.additive()
                self.expect("r" + token.text[1:])
                return Expression("fn", (inside,), token.text[1:])
        raise NotUnderstoodError(token.text)

    def variable(self, token: Token) -> Expression:
        name = token.text
        if self.at("_"):
            self.place += 1
            name += "_" + self.subscript()
        elif name in ("e", "i"):
            return Expression("const", (), name)
        follower = self.peek()
        if follower is not None and follower.kind == "num" and not follower.spaced:
            raise NotUnderstoodError("a number right behind a letter")
        if name in ("f", "g") and self.at("("):
            self.place += 1
            inside = self.bracket("(")
            return Expression("apply", (inside,), name)
        return Expression("var", (), name)

    def subscript(self) -> str:
        token = self.peek()
        if token is None:
            raise NotUnderstoodError("an end")
        self.place += 1
        if token.kind in ("num", "var", "word", "const"):
            return token.text or str(token.value)
        if token[:2] == ("op", "{"):
            parts: list[str] = []
            while (token := self.peek()) is not None and token[:2] != ("op", "}") and len(parts) < 8:
                if token.kind not in ("num", "var", "word", "const") and token.text not in (",", "+", "-"):
                    raise NotUnderstoodError("a subscript")
                parts.append(token.text or str(token.value))
                self.place += 1
            self.expect("}")
            return "".join(parts)
        raise NotUnderstoodError("a subscript")

    def mixed(self, token: Token) -> Expression:
        """A number, or a mixed number such as `2 1/3`."""
        whole = number(token.value)
        if self.at("_"):
            raise NotUnderstoodError("a number in another base")
        second = self.peek()
        if second is None:
            return whole
        if second.kind == "num":
            third = self.peek(2)
            proper = (
                second.spaced
                and self.at("/", ahead=1)
                and third is not None
                and third.kind == "num"
                and token.value.denominator == second.value.denominator == third.value.denominator == 1
                and "." not in token.text
                and 0 < second.value < third.value
            )
            if not proper or third is None:
                raise NotUnderstoodError("two numbers side by side")
            self.place += 3
            follower = self.peek()
            if follower is not None and self.starts(follower):
                raise NotUnderstoodError("a product behind a mixed number")
            return number(token.value + second.value / third.value)
        if second[:2] == ("cmd", "frac"):
            start = self.place
            self.place += 1
            fraction = self.command("frac")
            top, bottom = fraction.parts
            if top.op == bottom.op == "num":
                if not 0 < top.value < bottom.value or token.value.denominator != 1 or "." in token.text:
                    raise NotUnderstoodError("a number and an improper fraction side by side")
                return number(token.value + top.value / bottom.value)
            self.place = start
        return whole

    def function(self, name: str) -> Expression:
        base: tuple[Expression, ...] = ()
        power: Expression | None = None
        if self.take("_"):
            if name != "log":
                raise NotUnderstoodError("a subscript of a function")
            token = self.peek()
            if token is not None and token.kind == "num":
                self.place += 1
                base = (number(token.value),)
            else:
                base = (self.primary(),)
        token = self.peek()
        tight = name == "log" and not base and token is not None and not token.spaced and self.at("(", ahead=1)
        if tight and token is not None and token.text in ("2", "10"):  # log2(8) and log10(5)
            self.place += 1
            base = (number(token.value),)
        if name in ("sqrt", "cbrt"):
            return Expression("root", (number(2 if name == "sqrt" else 3), self.radicand()))
        if self.take("^"):
            power = self.exponent()
        bracketed = self.at("(", "{", "lfloor")
        if self.at("(") and name in ("max", "min", "gcd", "lcm"):
            self.place += 1
            several = self.bracket("(")
            arguments = several.parts if several.op in ("tuple", "list") else (several,)
            return Expression("fn", arguments, name)
        if name in ("max", "min", "gcd", "lcm"):
            raise NotUnderstoodError(name)
        argument = self.primary() if bracketed else self.argument()
        if bracketed and self.at("^", "!"):
            raise NotUnderstoodError("a power behind the argument of a function")
        inverse = power.parts[0] if power is not None and power.op == "paren" else power
        if inverse == Expression("neg", (number(1),)):
            if name in ("sin", "cos", "tan"):
                name, power = f"arc{name}", None
            else:
                raise NotUnderstoodError("an inverse")
        node = Expression(
            "fn", (argument, *base), {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(name, name)
        )
        return node if power is None else Expression("pow", (node, power))

    def argument(self) -> Expression:
        """What a function without brackets is of: the factors that follow, as in sin 2x."""
        if self.at("-"):
            self.place += 1
            self.down()
            inside = Expression("neg", (self.argument(),))
            self.depth -= 1
            return inside
        self.down()
        parts = self.power()
        while (token := self.peek()) is not None and token.kind in ("num", "var", "const", "cmd", "word"):
            if not self.starts(token):
                break
            if token.kind == "num":
                raise NotUnderstoodError("a number behind a factor")
            parts = Expression("mul", (parts, self.power()))
        if self.at("/", "(", "!"):
            raise NotUnderstoodError("where the argument of a function ends")
        self.depth -= 1
        return parts

    def radicand(self) -> Expression:
        """What a root is of: one factor."""
        if self.at("(", "{"):
            return self.primary()
        token = self.peek()
        if token is None or token.kind not in ("num", "var", "const", "cmd"):
            raise NotUnderstoodError("a root of nothing")
        self.place += 1
        if token.kind == "num":
            return number(token.value)
        return self.command(token.text) if token.kind == "cmd" else self.letter(token)

    def letter(self, token: Token) -> Expression:
        constant = token.kind == "const" or token.text in ("e", "i")
        return Expression("const" if constant else "var", (), token.text)

    def command(self, name: str) -> Expression:
        if name == "sqrt":
            index = number(2)
            if self.take("["):
                index = self.additive()
                self.expect("]")
            return Expression("root", (index, self.radicand()))
        if name in ("frac", "binom"):
            first, second = self.arguments()
            if name == "frac" and _leads_with_d(first) and second.op == "paren" and _leads_with_d(second):
                raise NotUnderstoodError("a derivative")
            return Expression("div" if name == "frac" else "binom", (first, second))
        if name.startswith("\\begin"):
            return self.matrix(name[7:-1])
        raise NotUnderstoodError(name)

    def arguments(self) -> tuple[Expression, Expression]:
        """The two arguments of a fraction; without braces one digit or letter is one argument, as in \\frac12."""
        token = self.peek()
        if token is not None and token.kind == "num" and len(token.text) > 1:
            if len(token.text) != 2 or not token.text.isdigit():
                raise NotUnderstoodError("a fraction without braces")
            self.place += 1
            if token.text[1] == "0" or token.text[0] == "0":
                raise NotUnderstoodError("a fraction without braces")
            follower = self.peek()
            if follower is not None and follower.kind == "num":
                raise NotUnderstoodError("a fraction without braces")
            return number(int(token.text[0])), number(int(token.text[1]))
        return self.one_argument(), self.one_argument()

    def one_argument(self) -> Expression:
        token = self.peek()
        if token is not None and token.kind == "num":
            self.place += 1
            if len(token.text) != 1:
                raise NotUnderstoodError("a fraction without braces")
            return number(token.value)
        if token is not None and (token.kind in ("var", "const") or token[:2] == ("op", "{") or token.kind == "cmd"):
            self.place += 1
            if token.kind == "cmd":
                return self.command(token.text)
            return self.braces() if token.kind == "op" else self.letter(token)
        raise NotUnderstoodError("a command without its argument")

    def braces(self) -> Expression:
        """A group in LaTeX's braces, the first of which is taken."""
        if self.take("}"):
            raise NotUnderstoodError("empty braces")
        bars, self.bars = self.bars, 0
        inside = self.additive()
        if self.take("choose"):
            inside = Expression("binom", (inside, self.additive()))
        self.bars = bars
        self.expect("}")
        return inside if inside.op in ("num", "var", "const") else Expression("paren", (inside,))

    def bracket(self, left: str) -> Expression:
        """A group, a tuple or an interval, the first bracket of which is taken."""
        bars, self.bars = self.bars, 0
        self.outward += left == "]"
        inside = self.items((")", "]", "["))
        self.outward -= left == "]"
        self.bars = bars
        token = self.peek()
        if token is None or token.kind != "op" or token.text not in (")", "]", "["):
            raise NotUnderstoodError("a bracket that is not closed")
        self.place += 1
        right = token.text
        if left == "]" or right == "[":  # the other way to write open ends
            if inside.op != "list" or len(inside.parts) != 2:
                raise NotUnderstoodError("brackets")
            left, right = {"]": "("}.get(left, left), {"[": ")"}.get(right, right)
            return Expression("tuple", inside.parts, left + right)
        if inside.op == "list":
            if len(inside.parts) == 1:
                raise NotUnderstoodError("a list of one")
            if (left, right) not in (("(", ")"), ("[", "]")) and len(inside.parts) != 2:
                raise NotUnderstoodError("brackets that do not fit")
            return Expression("tuple", inside.parts, left + right)
        if (left, right) == ("(", ")"):
            return Expression("paren", (inside,))
        if (left, right) == ("[", "]"):
            return Expression("paren", (inside,), "[]")
        raise NotUnderstoodError("brackets that do not fit")

    def members(self) -> Expression:
        r"""A set, behind its \{."""
        if self.take("\\}"):
            return Expression("set")
        bars, self.bars = self.bars, 0
        inside = self.items(("\\}",))
        self.bars = bars
        self.expect("\\}")
        return Expression("set", inside.parts if inside.op == "list" else (inside,))

    def matrix(self, name: str) -> Expression:
        if name not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array", "Bmatrix"):
            raise NotUnderstoodError(name)
        self.down()
        rows: list[tuple[Expression, ...]] = []
        row: list[Expression] = []
        while True:
            token = self.peek()
            if token is None:
                raise NotUnderstoodError("a matrix that is not closed")
            if token.kind == "cmd" and token.text == rf"\end{{{name}}}":
                self.place += 1
                if row:
                    rows.append(tuple(row))
                break
            row.append(self.additive())
            if self.take("\\\\"):
                rows.append(tuple(row))
                row = []
            elif not self.take("&") and not (self.peek() is not None and self.peek().kind == "cmd"):  # type: ignore[union-attr]
                raise NotUnderstoodError("a matrix")
        if not rows or len({len(one) for one in rows}) != 1:
            raise NotUnderstoodError("a matrix")
        self.depth -= 1
        return Expression("matrix", tuple(Expression("row", one) for one in rows))
