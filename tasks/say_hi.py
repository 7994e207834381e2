"""sayHi: a task as a plain dict, which is all a definition needs to be.

zhero enqueue sayHi -p to=Ann --wait
"""

from __future__ import annotations

from typing import Any

import zhero


async def _run(api: zhero.Node, params: dict[str, Any]) -> str:
    text = f"Hi, {params.get('to', 'there')}!"
    api.log(text, "cyan")
    return text


say_hi = {
    "name": "sayHi",
    "description": "I say hi to somebody, and return what I said",
    "scope": "any",
    "frequency": 0,
    "run": _run,
}
