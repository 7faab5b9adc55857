"""The providers' own clients against servers that give recorded answers, and OpenAI's against the node's form of them.

usage: clients.py providers '{"openai": URL, ...}' | face URL MODEL... | types FILE
Prints one JSON document.
"""

import json
import sys


def openai_client(url):
    import openai

    return openai.OpenAI(base_url=url + "/v1", api_key="sk-test", max_retries=0, timeout=20)


def openai_stream(url, model="m"):
    """What the stock client puts together from a stream."""
    text, calls, usage, finish = "", {}, None, None
    chunks = openai_client(url).chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "x"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in chunks:
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                have = calls.setdefault(call.index, ["", "", ""])
                have[0] += call.id or ""
                have[1] += call.function.name or ""
                have[2] += call.function.arguments or ""
    return {
        "text": text,
        "calls": [calls[i] for i in sorted(calls)],
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "total": usage.total_tokens,
        "finish": finish,
    }


def openai_whole(url, model="m"):
    answer = openai_client(url).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "x"}]
    )
    choice = answer.choices[0]
    calls = [[c.id, c.function.name, c.function.arguments] for c in choice.message.tool_calls or []]
    return {
        "text": choice.message.content,
        "calls": calls,
        "prompt": answer.usage.prompt_tokens,
        "completion": answer.usage.completion_tokens,
        "total": answer.usage.total_tokens,
        "finish": choice.finish_reason,
    }


def anthropic_both(url):
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, timeout=20)
    asked = dict(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    whole = client.messages.create(**asked)

    def read(message):
        text = "".join(b.text for b in message.content if b.type == "text")
        calls = [[b.id, b.name, b.input] for b in message.content if b.type == "tool_use"]
        usage = message.usage
        prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        return {"text": text, "calls": calls, "prompt": prompt, "completion": usage.output_tokens}

    return {"stream": read(streamed), "whole": read(whole)}


def google_both(url):
    from google import genai

    options = genai.types.HttpOptions(base_url=url)
    client = genai.Client(api_key="k", http_options=options)

    def read(answers):
        text, calls, usage = "", [], None
        for answer in answers:
            usage = answer.usage_metadata or usage
            for part in answer.candidates[0].content.parts:
                if part.function_call:
                    calls.append([part.function_call.id, part.function_call.name, part.function_call.args])
                elif part.text and not part.thought:
                    text += part.text
        completion = usage.candidates_token_count + (usage.thoughts_token_count or 0)
        return {"text": text, "calls": calls, "prompt": usage.prompt_token_count, "completion": completion}

    streamed = client.models.generate_content_stream(model="m", contents="x")
    whole = client.models.generate_content(model="m", contents="x")
    return {"stream": read(streamed), "whole": read([whole])}


def providers(urls):
    found = {}
    for name in ("openai", "xai"):
        found[name] = {"stream": openai_stream(urls[name]), "whole": openai_whole(urls[name])}
    found["anthropic"] = anthropic_both(urls["anthropic"])
    found["google"] = google_both(urls["google"])
    return found


def types(bodies):
    """Request bodies against the clients' own types: unknown and missing members are errors."""
    import typing

    import pydantic
    from anthropic.types import message_create_params as anthropic_params
    from google.genai import types as google
    from openai.types.chat import completion_create_params as openai_params

    def check(kind, body):
        for value in body.values():
            assert value is not None
        keys = set(typing.get_type_hints(kind))
        # These two were taken out of the client's types, not out of the interface: older models have them.
        extra = {"temperature", "top_p"} if "anthropic" in kind.__module__ else set()
        unknown = set(body) - keys - extra
        assert not unknown, (kind, unknown)
        checked = {key: value for key, value in body.items() if key in keys}
        adapter = pydantic.TypeAdapter(kind)
        # Iterables in these types are lazy; dumping them checks every item.
        adapter.dump_json(adapter.validate_python(checked), warnings="error")

    for name in ("openai", "xai", "compatible"):
        for body in bodies[name]:
            streamed = body.get("stream", False)
            kind = "CompletionCreateParamsStreaming" if streamed else "CompletionCreateParamsNonStreaming"
            check(getattr(openai_params, kind), body)
    for body in bodies["anthropic"]:
        streamed = body.get("stream", False)
        kind = "MessageCreateParamsStreaming" if streamed else "MessageCreateParamsNonStreaming"
        check(getattr(anthropic_params, kind), body)
    for body in bodies["google"]:
        unknown = set(body) - {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}
        assert not unknown, unknown
        # These models forbid unknown members.
        for content in body["contents"]:
            google.Content.model_validate(content)
        if "systemInstruction" in body:
            google.Content.model_validate(body["systemInstruction"])
        for tool in body.get("tools", []):
            google.Tool.model_validate(tool)
        if "toolConfig" in body:
            google.ToolConfig.model_validate(body["toolConfig"])
        google.GenerationConfig.model_validate(body["generationConfig"])
    return {"checked": sum(len(all) for all in bodies.values())}


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "providers":
        result = providers(json.loads(rest[0]))
    elif command == "face":
        url, *models = rest
        result = {m: {"stream": openai_stream(url, m), "whole": openai_whole(url, m)} for m in models}
    elif command == "types":
        with open(rest[0], encoding="utf-8") as file:
            result = types(json.load(file))
    print(json.dumps(result))
