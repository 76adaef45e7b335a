"""What a model says, without what it thinks: spans of thought in the marks of all usual models are left out."""

from __future__ import annotations

import re

_TAG = re.compile(
    r"""<(?P<a>/?)[a-z_:-]{0,20}?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|monologue)
        (?:[_:-][a-z]{1,10})?(?:\s[^<>\n]{0,60})?>
    |<(?P<g>/?)(?:cot|chain[_-]of[_-]thoughts?)>
    |\[(?P<b>/?)(?:think(?:ing)?|reasoning)\]
    |◁(?P<c>/?)think▷
    |<\|(?P<d>/?)(?:think(?:ing)?|thought|reasoning)\|>
    |<\|(?:begin_of_thought|start_of_thought|(?:start|begin)_(?:think(?:ing)?|reasoning)
        |(?:think(?:ing)?|reasoning)_(?:start|begin))\|>|<\|channel>(?:thought|analysis)\b|<unused94>(?:thought\b)?
    |<\|(?P<e>end_of_thought|end_(?:think(?:ing)?|reasoning)|(?:think(?:ing)?|reasoning)_end)\|>|(?P<f><channel\|>|<unused95>)""",
    re.VERBOSE | re.IGNORECASE,
)


_ESCAPED = re.compile(r"&lt;(/?think(?:ing)?)&gt;", re.IGNORECASE)


_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<\n]{0,40}(?:<\|constrain\|>[^<\n]{0,40})?<\|message\|>")


_CHANNEL = re.compile(
    r"<\|channel\|>\s*(?:analysis|commentary)\b[^<\n]{0,80}(?:<\|constrain\|>[^<\n]{0,40})?<\|message\|>"
)


_SPECIAL = re.compile(r"<\|(?:end|return|call|start|channel)\|>")


def spoken(text: str) -> str:
    """The text without its thoughts; pure, linear in the text, never raises.

    A thought ends at its closing mark. A closing mark without an opening one ends a thought that began in the prompt,
    where it is the first mark of the text; later ones are only taken away. A thought that nothing closes is read where
    there is nothing else.
    """
    if "&lt;" in text[:400] or "&lt;/" in text:
        text = _ESCAPED.sub(r"<\1>", text)
    if "<|channel|>" in text:
        return _final_channel(text)
    if text.startswith("analysis") and "assistantfinal" in text:  # the same, its special tokens taken away
        return text.rpartition("assistantfinal")[2]
    if "<" not in text and "[" not in text and "◁" not in text:
        return text
    pieces: list[str] = []
    start = 0  # of what is not yet in pieces
    depth = pending = 0
    seen = closed = False
    for match in _TAG.finditer(text):
        if match[0][0] == "[" and not match[0].isupper() and not match[0].islower():
            continue
        closing = any(match[name] for name in "abcdefg")
        if not closing:
            if depth == 0:
                pieces.append(text[start : match.start()])
                start = match.end()
            depth += 1
            seen, pending = True, 0
        elif depth:
            # the first closing mark ends all that was opened, unless there are more of them
            start, pending, depth, closed = match.end(), depth - 1, 0, True
        elif pending:
            start, pending = match.end(), pending - 1
        elif not seen and not closed:
            start, closed = match.end(), True
            if not text[start:].strip():
                return text[: match.start()]  # nothing was said behind it, so what it is behind was not a thought
        else:
            pieces.append(text[start : match.start()])
            start = match.end()
    if depth == 0:
        pieces.append(text[start:])
    elif not any(piece.strip() for piece in pieces):
        return text if not closed else text[start:]
    return "".join(pieces)


def _final_channel(text: str) -> str:
    """What stands in the last final channel; without one, what is in no channel of thought."""
    last = None
    for match in _FINAL.finditer(text):
        last = match
    if last is not None:
        end = _SPECIAL.search(text, last.end())
        return text[last.end() : end.start() if end else len(text)]
    first = _CHANNEL.search(text)
    return text if first is None else text[: first.start()].removesuffix("assistant").removesuffix("<|start|>")
