"""Jinja chat templates against jinja2 as Transformers sets it up, and the built-in ones against hand-worked prompts.

The templates below are written for this test in the manner of the families, with the constructions that real ones use.
LANNER_TEST_MODEL_DIR  a Hugging Face folder whose tokenizer_config.json has a chat_template
"""

import datetime
import json

import jinja2
import jinja2.ext
import pytest
from jinja2 import sandbox

import text_probe

TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "Wetter für <b>'eine' Stadt</b> & \"mehr\"",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1},
                                                    "scale": {"type": "number", "default": 1.0, "minimum": -1e-7}},
                   "required": ["city"], "additionalProperties": False, "x": None, "big": 1e22, "list": [1, 2.5, "é"]}}}
PLAIN = [{"role": "user", "content": "Hallo, wie geht's?"}]
TALK = [
    {"role": "system", "content": "You are 书生·浦语.\n"},
    {"role": "user", "content": "  Was ist 1 < 2 && \"x\"?  "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nJa. 😀"},
    {"role": "user", "content": "Danke\n\n"},
]
CALL = [
    {"role": "user", "content": "Wie wird das Wetter?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}}}]},
    {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "{\"sky\": \"grau\"}"},
    {"role": "user", "content": "Und morgen?"},
]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "ein "}, {"type": "text", "text": "Bild"}]}]
ODD = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]

CONVERSATIONS = [
    {"messages": PLAIN},
    {"messages": TALK},
    {"messages": TALK, "add_generation_prompt": False},
    {"messages": TALK[:3], "add_generation_prompt": False},
    {"messages": CALL, "tools": [TOOL]},
    {"messages": PLAIN, "tools": [TOOL, TOOL], "extra": {"enable_thinking": False, "date_string": "26 Jul 2024"}},
    {"messages": PARTS},
    {"messages": ODD},
    {"messages": []},
]

TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
              "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama_like": """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "qwen_like": """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages and messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
""",
    "mistral_like": """\
{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}\
{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""",
    "blocks": """\
{% macro part(content) %}
    {% if content is string %}
{{ content }}
    {% elif content is none %}
(none)
    {% else %}
        {% for item in content if item.type == 'text' %}
{{ item.text|upper }}{{ "," if not loop.last }}
        {% endfor %}
    {% endif %}
{% endmacro %}
{# a comment #}
{% for m in messages %}
    {% if loop.index > 3 %}{% break %}{% endif %}
  {{ loop.index }}/{{ loop.length }} {{ m.role.capitalize() }}: {{ part(m.content) -}}
  {% generation %}{{ m.get('name', 'nobody') }}{% endgeneration %}
  {{ m.keys()|list|join('+') }} {{ m.items()|map('first')|list|length }}
{% else %}
nothing
{% endfor %}
{{ [1, 2.0, 'x', true, none] | tojson }} {{ 'é😀\x7f'|tojson(ensure_ascii=True) }} {{ {'b': 1, 'a': [] }|tojson(sort_keys=true) }}
{{ 'a-b-c'.split('-')|last }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ 7 % 3 }} {{ 1 / 2 }} {{ 'ab' * 2 }} {{ 'x' ~ 1 ~ none ~ true }}
{{ (messages|selectattr('role', 'equalto', 'user')|list)|length }} {{ undefined_name }} {{ undefined_name is defined }}
{{ [3, 1, 2]|sort|join(',') }} {{ 'A,B'|replace(',', ';') }} {{ "%s=%d"|format('a', 3) }} {{ messages|length > 2 and 'many' or 'few' }}
{{ true }} {{ none }} {{ 1.0 }} {{ ['a', "it's"] }} {{ {'k': none, 'f': 1.5} }} {{ range(3)|list }}
""",
    "tags": """\
{# {% for x in none %} #}{{ '{% for x in none %}{% generation %}' }}{% raw %}{% for x in none %}{{ a }}{% endraw %}
{% for k, v in {'a': 1, 'b': 2}.items() if v > 1 %}{{ k }}{{ v }}{% endfor %}
{% for x in [1, 2, 3]
     if x in [2, 3] %}{{ x }}{{ loop.length }}{% endfor %}
{% for x in (1, 2), 3 %}{{ x }}{% endfor %}
{%- for x in [[1, [2]], 3] recursive -%}<{{ loop(x) if x is iterable else x }}>{%- endfor -%}
{%+ for x in 'a if b' %}{{ x }}{% endfor %}{% for x in [] %}{% else %}none{% endfor %}
{{ none is iterable }}{{ undefined_name is iterable }}{{ 'a' is iterable }}{{ 1 is iterable }}
""",
    "operators": """\
{% set small = 1e-7 %}{% set large = 1e22 %}{{ small ~ 'a' ~ large ~ -0.0 }} {{ 'x' ~ none ~ undefined_name ~ [1e-7, 'é\\x7f\\u2028\\u0301\\n', "it's", 'say "it\\'s"'] }}
{{ 'abc'[1:] }} {{ 'abcdef'[::-2] }} {{ 'äöü'[-2:] }} {{ [1, 2, 3][-2:] }} {{ [1, 2, 3][::-1] }} {{ 'é😀a'[1] }} {{ [1][5] is defined }}
{{ {'a': 1}['a'] }} {{ {'a': 1}['b'] is defined }} {{ [1, 2][-1] }} {{ 1 == 1.0 }} {{ 'a' == 1 }} {{ none != none }} {{ [1] == [1] }}
{{ 1 < 2.5 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ true <= 2 }} {{ 'b' >= 'a' }} {{ 2 > 3 }} {{ [3, 4]|select('eq', 3)|list }}
{{ {'a': [1e-7, none, true, 'x']} }} {{ 1e-7|string }} {{ 100000000000000000000.0 }} {{ 12345678901234567890 }}
""",
    "none has no items": "{% for x in none %}{% endfor %}",
    "no order of kinds": "{% set a = 'a' %}{{ a < 1 }}",
    "no order of none": "{% set a = none %}{{ a < 1 }}",
    "date": "{{ strftime_now('%Y-%m-%d %B') }} {{ strftime_now('') }}",
}


def transformers_environment():
    """The environment of transformers.utils.chat_template_utils, rebuilt from its documentation."""

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

        @staticmethod
        def _text(caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def render_reference(source, inputs):
    """The prompt, or None when the template or jinja2 refuses."""
    try:
        return transformers_environment().from_string(source).render(
            messages=inputs["messages"], tools=inputs.get("tools"), documents=None, bos_token="<s>", eos_token="</s>",
            add_generation_prompt=inputs.get("add_generation_prompt", True), **inputs.get("extra", {}))
    except (jinja2.exceptions.TemplateError, TypeError):
        return None


def compare(source, tmp_path):
    path = tmp_path / "template.jinja"
    path.write_text(source)
    actual = text_probe.render(path, [{**one, "bos": "<s>", "eos": "</s>"} for one in CONVERSATIONS])
    expected = [render_reference(source, one) for one in CONVERSATIONS]
    return [(e, a) for e, a in zip(expected, actual, strict=True)
            if (a != e if isinstance(a, str) else e is not None)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_jinja_equals_jinja2(name, tmp_path):
    assert compare(TEMPLATES[name], tmp_path) == []


def test_template_of_the_model_equals_jinja2(tmp_path):
    folder = text_probe.environment_path("LANNER_TEST_MODEL_DIR")
    source = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    assert compare(source, tmp_path) == []


def test_a_refusal_carries_the_words_of_the_template(tmp_path):
    path = tmp_path / "template.jinja"
    path.write_text(TEMPLATES["mistral_like"])
    (answer,) = text_probe.render(path, [{"messages": ODD}])
    assert "Conversation roles must alternate" in str(answer)


def built_in(name, messages, **more):
    (answer,) = text_probe.render(name, [{"messages": messages, **more}])
    return answer


SYSTEM = {"role": "system", "content": "sys"}
Q = {"role": "user", "content": "Q"}
A = {"role": "assistant", "content": "A"}


def test_internlm2_with_its_own_system_text():
    assert built_in("internlm2", [Q]) == (
        "<|im_start|>system\nYou are an AI assistant whose name is InternLM (书生·浦语).\n"
        "- InternLM (书生·浦语) is a conversational language model that is developed by Shanghai AI Laboratory "
        "(上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
        "- InternLM (书生·浦语) can understand and communicate fluently in the language chosen by the user such as English and "
        "中文.\n<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n")


def test_an_answer_at_the_end_is_continued():
    assert built_in("qwen", [SYSTEM, Q, A]).endswith("<|im_start|>assistant\nA")
    assert built_in("qwen", [SYSTEM, Q, A], add_generation_prompt=False).endswith("<|im_start|>assistant\nA<|im_end|>\n")


def test_tools_of_internlm2_are_written_as_python_does():
    prompt = built_in("internlm2", [SYSTEM, Q], tools=[TOOL])
    assert f"<|im_start|>system name=<|plugin|>\n{json.dumps([TOOL['function']], ensure_ascii=False)}<|im_end|>\n" in prompt
    assert "unsupported" in str(built_in("vicuna", [Q], tools=[TOOL]))


def test_json_of_lmdeploy(tmp_path):
    text = json.dumps({"model_name": "internlm2", "meta_instruction": "kurz", "eosys": "|\n", "stop_words": ["x"]})
    expected = "<|im_start|>system\nkurz|\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    assert built_in(text, [Q]) == expected
    path = tmp_path / "template.json"
    path.write_text(text)
    assert built_in(str(path), [Q]) == expected
    assert built_in(json.dumps({"model_name": "mine", "user": "U:", "assistant": "A:", "eoh": "\n"}), [Q]) == "U:Q\nA:"
