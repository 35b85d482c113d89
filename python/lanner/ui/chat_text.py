"""Text for Gradio's chat area, in which nothing that a person or a model wrote becomes HTML.

The chat area renders Markdown with HTML in it. It has a sanitizer, but that keeps what is harmless by itself (pictures
from elsewhere, styles, forms), and text must stay text. So a person's words are given to it letter by letter, and a
model's Markdown is written anew with these invariants:

1. Outside a fenced block the only ``<`` are those of ``<code>`` and ``</code>`` that `markdown` writes itself.
2. Outside a fenced block there is no backtick and no run of three tildes: only `markdown` begins code.
3. A fence stands at the beginning of a line behind an empty one, is longer than any run of backticks between it and its
   end, and is always closed; its language is a plain word, and not one that the chat area draws as a diagram.
4. Links lead to http and https alone, and there are no images.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(?:(`{3,})([^`]*)|(~{3,})(.*))$")
_BACKTICKS = re.compile("`+")
_EMPTY_LINES = re.compile(r"(\n(?:[ \t]*\n)+)")
_LANGUAGE = re.compile(r"[A-Za-z0-9+#-]{1,20}")
_DRAWN = {"mermaid"}
# Marks of Markdown within a line, and what it makes links of unasked.
_MEANINGFUL = re.compile(r"[\\`*_\[\]<>|~&@]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def _reference(match: re.Match[str]) -> str:
    """Numeric references, which Markdown takes for nothing but text."""
    return "".join(f"&#{ord(c)};" for c in match[0])


def _coded(text: str) -> str:
    """A line, or a part of one behind its beginning, in which nothing means anything to Markdown."""
    return _MEANINGFUL.sub(_reference, text)


def plain(text: str) -> str:
    """Markdown that shows ``text`` as it is, line breaks and indentation included. It is one line, so that only its
    beginning could mean anything besides.

    >>> plain("1. <b>")
    '&#49;. &#60;b&#62;'
    """
    lines = text.strip("\r\n").replace("\r\n", "\n").replace("\r", "\n").expandtabs(4).split("\n")
    shown = "<br>".join(re.sub(r"^ | (?= )", "&nbsp;", _coded(line)) for line in lines)
    return re.sub(r"^[^&A-Za-z]", _reference, shown)


def _prose(text: str) -> str:
    """Markdown outside of code, as the invariants want it."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("`", "&#96;")
    text = re.sub(r"~{3,}", lambda run: "&#126;" * len(run[0]), text)
    text = text.replace("![", "!&#91;").replace("]:", "]&#58;")
    return re.sub(r"\]\((?!https?://)", "]&#40;", text)


def _paragraph(text: str) -> str:
    """A paragraph with code spans: each lies between a run of backticks and the next one of the same length."""
    runs = [(run.start(), run.end()) for run in _BACKTICKS.finditer(text)]
    partner: dict[int, int] = {}  # of a run, both as places in `runs`
    last: dict[int, int] = {}  # of each length, the run that came last
    for place in range(len(runs) - 1, -1, -1):  # from the end, so that a text of nothing but backticks takes no longer
        length = runs[place][1] - runs[place][0]
        if length in last:
            partner[place] = last[length]
        last[length] = place
    parts: list[str] = []
    end = place = 0
    while place < len(runs):
        close = partner.get(place)
        if close is not None:
            code = text[runs[place][1] : runs[close][0]].replace("\n", " ")
            if code.strip() and code[0] == code[-1] == " ":
                code = code[1:-1]
            parts += [_prose(text[end : runs[place][0]]), "<code>", _coded(code), "</code>"]
            end = runs[close][1]
            place = close
        place += 1
    return "".join([*parts, _prose(text[end:])])


def _inline(text: str) -> str:
    """Paragraphs, outside of fenced blocks."""
    return "".join(part if part.isspace() else _paragraph(part) for part in _EMPTY_LINES.split(text))


def _fenced(code: str, language: str) -> str:
    """A fenced block that holds ``code`` whatever is in it."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"\n\n{fence}{language}\n{code}\n{fence}\n\n"


def markdown(text: str) -> str:
    """A model's Markdown, of which no part can become HTML but by Markdown's own forms.

    A block that is not closed yet, as while an answer comes, counts as closed.

    >>> markdown("**a** <img src=x>")
    '**a** &lt;img src=x>'
    >>> markdown("`a<b>`")
    '<code>a&#60;b&#62;</code>'
    """
    parts: list[str] = []
    prose: list[str] = []
    code: list[str] | None = None  # the lines of the block that is open
    marks, language, indent = "", "", 0
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        fence = _FENCE.match(line)
        if code is None and fence:
            parts.append(_inline("\n".join(prose)))
            marks = fence[1] or fence[3]
            word = _LANGUAGE.fullmatch((fence[2] or fence[4] or "").strip())
            language = word[0] if word and word[0].lower() not in _DRAWN else ""
            indent = len(line) - len(line.lstrip(" \t"))
            prose, code = [], []
        elif code is None:
            prose.append(line)
        elif line.strip() and set(line.strip()) == {marks[0]} and len(line.strip()) >= len(marks):
            parts.append(_fenced("\n".join(code), language))
            code = None
        else:
            code.append(line[min(indent, len(line) - len(line.lstrip(" \t"))) :])
    parts.append(_inline("\n".join(prose)) if code is None else _fenced("\n".join(code), language))
    return "".join(parts)
