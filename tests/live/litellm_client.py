"""What litellm has after asking this box. A line of JSON asks, a line answers."""

import json
import sys

import litellm


def ask(url: str, provider: str, how: str) -> dict[str, object]:
    asked = {
        "model": f"{provider}/model-x",
        "api_base": f"{url}/v1" if provider == "openai" else url,
        "api_key": "unused",
        "messages": [{"role": "user", "content": "Tell me about the lighthouse."}],
        "max_tokens": 64,
        "num_retries": 0,
        "timeout": 30,
    }
    if how == "whole":
        (choice,) = litellm.completion(**asked).choices
        return {"text": choice.message.content, "finishes": [choice.finish_reason]}
    text, finishes = "", []
    for chunk in litellm.completion(**asked, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finishes += [choice.finish_reason] if choice.finish_reason else []
    return {"text": text, "finishes": finishes}


for line in sys.stdin:
    print("said " + json.dumps(ask(*json.loads(line))), flush=True)
