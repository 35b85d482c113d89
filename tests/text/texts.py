"""Seeded strings that tokenizers stumble over: many scripts, emoji, code, runs of blanks, special tokens, noise."""

import random

PROSE = """
The quick brown fox doesn't jump over the lazy dog; we've, they'll, I'M, SHE'D — isn't it? She said: "no".
Übergrößenträger fahren über Straßen. Cửa Việt, Việt Nam. Дом стоит на горе, а поезд едет. Το σπίτι είναι μεγάλο.
我们在学习大语言模型的推理引擎。人工智能实验室，书生·浦语！ 東京タワーへ行きました。カタカナとひらがな。 안녕하세요 세계, 한국어 문장입니다.
مرحبا بالعالم، هذه جملة عربية. שלום עולם, זה משפט. नमस्ते दुनिया, यह एक वाक्य है। สวัสดีชาวโลก ภาษาไทย বাংলা ভাষা தமிழ் మాట ქართული Հայերեն
""".split()
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "👍🏽", "❤️", "🧑🏿‍🚀", "☺", "✈️", "🤷🏻‍♂️", "①", "½", "Ⅻ", "٣", "४"]
CODE = [
    "for (int i = 0; i < n; ++i) {\n\t\tsum += a[i];\n}", "def f(x: int) -> str:\n    return f'{x:>10}'\n",
    "SELECT * FROM t WHERE a='b';", "#include <vector>\r\n", "if x!=y&&z||w:", "<div class=\"a\">&nbsp;</div>",
    "0x1F + 3.14e-10 - 1_000_000", "https://example.org/a?b=c&d=%20#e", "$HOME/.config/*.json", "a\\nb\\t\"c\"",
]
BLANKS = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2003", "\u200b", "\ufeff", " " * 17, "\v", "\f",
          "\u0085", "\u2028"]
MARKS = ["e\u0301", "A\u030a", "\u1100\u1161", "ﬁ", "ſ", "İ", "ı", "ǅ", "'ſ", "'S", "'LL", "Ⅷ", "\u0300", "\u20e3", "\x00", "\x07", "\x7f",
         "\ufffd", "\U0010ffff", "\ue000"]


def random_character(rng):
    while True:
        code = rng.choice((rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000), rng.randrange(0x110000)))
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def piece(rng, special_tokens):
    kind = rng.random()
    if kind < 0.34:
        return rng.choice(PROSE)
    if kind < 0.52:
        return rng.choice(BLANKS)
    if kind < 0.60:
        return rng.choice(EMOJI)
    if kind < 0.68:
        return rng.choice(CODE)
    if kind < 0.74:
        return str(rng.randrange(10 ** rng.randrange(1, 12)))
    if kind < 0.80:
        return rng.choice(MARKS)
    if kind < 0.86 and special_tokens:
        token = rng.choice(special_tokens)
        return token if rng.random() < 0.8 else token[: rng.randrange(1, len(token))]
    if kind < 0.93:
        return "".join(random_character(rng) for _ in range(rng.randrange(1, 6)))
    return rng.randbytes(rng.randrange(1, 12)).decode(errors="replace")


def generate(count, seed, special_tokens=()):
    """`count` strings; the same ones for the same arguments."""
    rng = random.Random(seed)
    texts = ["", " ", "\n", "a", "  a", "a  "]
    while len(texts) < count:
        glue = rng.choice(("", " ", " ", "\n"))
        texts.append(glue.join(piece(rng, special_tokens) for _ in range(rng.randrange(1, 14))))
    return texts[:count]
