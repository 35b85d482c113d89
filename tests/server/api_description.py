"""What /openapi.json promises, as a judge of answers; and a body for each route that is answered with 200."""

import functools
import json

import jsonschema

USER = {"role": "user", "content": "x"}
EXAMPLES = {
    "/v1/chat/completions": {
        "model": "test", "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "y"}]}],
        "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 10, "n": 2, "stop": ["zz"], "seed": 3, "logprobs": True,
        "top_logprobs": 2, "logit_bias": {"65": 1.5}, "presence_penalty": 0.5, "stream": True,
        "stream_options": {"include_usage": True}, "chat_template_kwargs": {"a": 1}, "response_format": {"type": "text"},
        "tools": [], "tool_choice": "auto"},
    "/v1/completions": {"prompt": ["a", "b"], "max_tokens": 4, "logprobs": 1, "n": 2, "stop": "q", "stream": False},
    "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}], "max_output_tokens": 4,
                      "instructions": "b", "stream": True, "include": ["message.output_text.logprobs"], "top_logprobs": 2,
                      "stop": ["zz"], "metadata": {"a": "b"}, "reasoning": {"effort": "low"}, "store": False, "tools": []},
    "/v1/messages": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}],
                     "system": [{"type": "text", "text": "c"}], "max_tokens": 4, "stop_sequences": ["zz"], "stream": True,
                     "temperature": 0.5, "top_k": 3, "metadata": {"user_id": "d"}, "tools": []},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "system": "b"},
    "/generate": {"input_ids": [65, 66], "max_tokens": 4, "return_logprob": True, "stop_token_ids": [70]},
    "/v1/chat/interactive": {"prompt": "Hi", "session_id": 5, "interactive_mode": True, "request_output_len": 4},
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "base64", "pooling": "last"},
    "/pooling": {"input": [[65, 66], [67]], "pooling": "mean", "normalize": True},
    "/get_ppl": {"input": [65, 66]},
    "/v1/encode": {"input": ["a", "b"], "add_bos": True, "do_preprocess": False},
    "/tokenize": {"prompt": "a", "add_special_tokens": False},
    "/detokenize": {"tokens": [65, 66], "skip_special_tokens": True},
    "/abort_request": {"abort_all": False, "session_id": 1},
}


class Description:
    def __init__(self, document):
        self.document = document
        schemas = self.document["components"]["schemas"]
        self.judges = {name: jsonschema.Draft202012Validator(schemas[name]) for name in schemas if name != "Message"}

    @classmethod
    def of(cls, server, headers=None):
        status, _, body = server.ask("/openapi.json", headers=headers)
        assert status == 200, body
        return cls(json.loads(body))

    def operations(self):
        """(method, path, operation) of every route."""
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation

    @functools.cached_property
    def error_forms(self):
        return [self.judges["Error"], self.judges["AnthropicError"]]

    def check(self, operation, status, headers, body):
        """Fails unless the operation says that this may be answered, and in this form."""
        assert str(status) in operation["responses"], (status, body)
        promised = operation["responses"][str(status)].get("content", {})
        kind = headers["Content-Type"].partition(";")[0]
        assert kind in promised, (kind, promised)
        name = promised[kind].get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name:
            self.judges[name].validate(json.loads(body))
        if status >= 400 and name != "Health":
            self.check_error(status, body)
        elif kind == "application/json":
            json.loads(body)
        elif kind == "text/event-stream":
            check_events(body)

    def check_error(self, status, body):
        """Of any route, or of none."""
        error = json.loads(body)
        assert any(judge.is_valid(error) for judge in self.error_forms), body
        assert error["error"]["message"], body
        if "object" in error:
            assert error["code"] == status and error["message"] == error["error"]["message"], body


def check_events(body):
    """Each event of a stream is JSON, and the last one is an end."""
    text = body.decode()
    if text.startswith("{"):  # as LMDeploy sends them
        events = [json.loads(line) for line in text.splitlines()]
        assert "error" in events[-1] or events[-1]["finish_reason"], body
        return
    assert text.endswith("\n\n"), body
    last = ""
    for event in text[:-2].split("\n\n"):
        for line in event.split("\n"):
            name, _, last = line.partition(": ")
            assert name in ("data", "event"), body
            if name == "data" and last != "[DONE]":
                json.loads(last)
    ends = ("message_stop", "error", "response.completed", "response.incomplete", "response.failed")
    assert last == "[DONE]" or json.loads(last).get("type") in ends or "finish_reason" in json.loads(last), body
