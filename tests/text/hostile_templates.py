"""Templates that want more than a rendering may take. Each must end soon, in little memory, with one line."""

NEST = ("{% set ns = namespace(x=[1], y=[1]) %}"
        "{% for i in range(COUNT) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}")
TWINS = NEST.replace("COUNT", "64")
DEEP = ("{% set ns = namespace(x=[1], y=[1]) %}"
        "{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}")


def repeat(first, step, last, times=64):
    return f"{{% set ns = namespace(x={first}) %}}{{% for i in range({times}) %}}{{% set ns.x = {step} %}}{{% endfor %}}{last}"


LONG = "{% set x = 'é' * 900000 %}{% set y = 'é' * 899999 ~ 'é' %}"


def twice(step):
    return f"{{% for i in range(99999) %}}{{% for j in range(99999) %}}{step}{{% endfor %}}{{% endfor %}}"


HOSTILE = {
    "a loop in a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}{% endfor %}{% endfor %}",
    "a string doubled": repeat("'aaaaaaaa'", "ns.x ~ ns.x", ""),
    "a string doubled by +": repeat("'aaaaaaaa'", "ns.x + ns.x", ""),
    "a list doubled": repeat("[1, 2]", "ns.x + ns.x", "{{ ns.x|list }}"),
    "a list doubled, then joined with nothing": repeat(
        "[1]", "ns.x + ns.x", "{% for i in range(9) %}{% set ns.x = ns.x + [] %}{% endfor %}{{ ns.x|length }}", 31),
    "a list of unknown length doubled": repeat("'ab'|map('upper')", "ns.x + ns.x", "{{ ns.x|list }}"),
    "a list multiplied": repeat("[1, 2, 3]", "ns.x * 1000", "{{ ns.x|list }}"),
    "a list that repeats, as a list": "{{ ([1] * 1000000000)|list|length }}",
    "a list that repeats, as text": "{{ ([1] * 1000000000) ~ '' }}",
    "a string that repeats": "{{ 'a' * 10000000000 }}",
    "a range": "{% for i in range(10**9) %}{% endfor %}",
    "a range as a list": "{{ range(10**9)|list }}",
    "lists of itself, printed": TWINS + "{{ ns.x }}",
    "lists of itself, captured": TWINS + "{% set y %}{{ ns.x }}{% endset %}",
    "lists of itself, ~": TWINS + "{{ (ns.x ~ '')|length }}",
    "lists of itself, string": TWINS + "{{ ns.x|string|length }}",
    "lists of itself, join": TWINS + "{{ ns.x|join(',')|length }}",
    "lists of itself, format": TWINS + "{{ ('%s'|format(ns.x))|length }}",
    "lists of itself, Python's format": TWINS + "{{ '{}'.format(ns.x)|length }}",
    "lists of itself, tojson": TWINS + "{{ ns.x|tojson|length }}",
    "lists of itself, ==": TWINS + "{{ ns.x == ns.y }}",
    "lists of itself, <": TWINS + "{{ ns.x < ns.y }}",
    "lists of itself, in": TWINS + "{{ ns.x in [ns.y] }}",
    "lists of itself, as keys": TWINS + "{% set d = {ns.x: 1} %}{{ d[ns.y] }}",
    "lists of itself, unique": TWINS + "{{ [ns.x, ns.y]|unique|list|length }}",
    "lists of itself, sort": TWINS + "{{ [ns.x, ns.y]|sort|length }}",
    "deep lists, printed": DEEP + "{{ ns.x }}",
    "deep lists, ~": DEEP + "{{ ns.x ~ '' }}",
    "deep lists, compared": DEEP + "{{ ns.x == ns.y }}",
    "deep lists, tojson": DEEP + "{{ ns.x|tojson }}",
    "deep lists, as keys": DEEP + "{% set d = {ns.x: 1} %}{{ d[ns.y] }}",
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "a namespace in itself, ~": "{% set ns = namespace() %}{% set ns.a = [ns, ns] %}{{ ns.a ~ '' }}",
    "a namespace in itself, tojson": "{% set ns = namespace() %}{% set ns.a = [ns, ns] %}{{ ns.a|tojson }}",
    "a namespace in itself, compared": "{% set ns = namespace() %}{% set o = namespace() %}{% set ns.a = ns %}{% set o.a = o %}"
                                       "{{ ns == o }}",
    "a join": "{{ range(99999)|join('x' * 100000) }}",
    "Python's join": "{{ ('x' * 100000).join(['a'] * 99999) }}",
    "a replacement": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "replacements of nothing": "{{ 'a'.replace('', 'b' * 5000).replace('', 'c' * 5000).replace('', 'd' * 5000) }}",
    "an indent": "{{ ('a\n' * 100000)|indent(100000) }}",
    "a huge indent": "{{ 'x\ny'|indent(999999999999) }}",
    "a wide number": "{{ '%999999999d'|format(1) }}",
    "a large power": "{{ 10 ** 100000000 }}",
    "a macro in itself": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "a macro twice in itself": "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}",
    "a caller in its call": "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}",
    "a recursive loop": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a template in itself": "{% include 'chat_template' %}",
    "a block in itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "brackets": "{{ " + "(" * 30000 + "1" + ")" * 30000 + " }}",
    "lists in lists": "{{ " + "[" * 100000 + "1" + "]" * 100000 + " }}",
    "ifs in ifs": "{% if 1 %}" * 20000 + "{% endif %}" * 20000,
    "loops in loops": "{% for x in [1] %}" * 5000 + "{% endfor %}" * 5000,
    "a long not": "{{ " + "not " * 100000 + "1 }}",
    "a long minus": "{{ " + "-" * 100000 + "1 }}",
    "a long if else": "{{ " + "1 if 1 else " * 50000 + "1 }}",
    "a large source": "x" * ((1 << 20) + 1),
    "a long text": "{% for i in range(99999) %}{{ 'x' * 60 }}{% endfor %}",
    "a long captured text": "{% set x %}{% for i in range(99999) %}{{ 'x' * 6000 }}{% endfor %}{% endset %}",
    "many lists": repeat("[]", "[ns.x, range(9999)|list]", "", 2000),
    "slices of slices": repeat("[1, 2, 3]", "ns.x[0:]", "{{ ns.x|list }}", 50000),
    "a list that grows": repeat("[]", "ns.x + ['a' * 100]", "", 99999),
    "a chain": repeat("{'a': 1}", "ns.x|chain(ns.x)", "{{ ns.x|length }}", 50000),
    "many sums": "{{ 1" + "+1" * 200000 + " }}",
    "many sums without an end": "{{ 1" + "+1" * 200000,
    "many powers": "{{ 1" + "**1" * 100000 + " }}",
    "many filters": "{{ 1" + "|string" * 100000 + " }}",
    "many attributes": "{{ a" + ".b" * 200000 + " }}",
    "many subscripts": "{{ a" + "[0]" * 200000 + " }}",
    "many calls": "{{ a" + "()" * 200000 + " }}",
    "many ands": "{{ 1" + " and 1" * 100000 + " }}",
    "many tests": "{{ 1" + " is string" * 50000 + " }}",
    "many elifs": "{% if 0 %}" + "{% elif 0 %}" * 50000 + "{% endif %}",
    "searches of a long text": LONG + twice("{% set z = 'ab' in x %}"),
    "searches of a long list": "{% set x = range(99999)|list %}" + twice("{% set z = -1 in x %}"),
    "comparisons of long texts": LONG + twice("{% set z = x == y %}"),
    "comparisons of long texts in a row": LONG + twice("{% set z = x == y == x %}"),
    "long texts as equal": LONG + twice("{% set z = x is eq y %}"),
    "characters of a long text": LONG + twice("{% set z = x[899999] %}"),
    "ends of a long text": LONG + twice("{% set z = x[-1:] %}"),
    "long keys": LONG + twice("{% set z = {x: 1} %}"),
    "lookups by long keys": LONG + "{% set d = {y: 1} %}" + twice("{% set z = d[x] %}"),
    "long texts in upper case": LONG + twice("{% set z = x is upper %}"),
    "long attributes": LONG + "{% set d = {y: 1} %}" + twice("{% set z = d|attr(x) %}"),
}
