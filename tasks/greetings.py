"""sayHello, every second, and sayGoodbye, when somebody asks for it: two tasks in one file, in the original form.

    zhero run --tasks tasks        # says hello once a second
    zhero enqueue sayGoodbye       # from another terminal

A task in this form takes the node, which can log in a colour, and its params as one dict.
"""

from __future__ import annotations

from typing import Any

import zhero


@zhero.task(name="sayHello", description="I say hello", scope="any", frequency=1000)  # milliseconds
async def say_hello(api: zhero.Node, params: dict[str, Any]) -> None:
    """Say hello on one node, about once a second, for as long as there are nodes."""
    api.log("----- Hi There! ----", "green")


@zhero.task(name="sayGoodbye", description="I say goodbye", scope="any", frequency=0)
async def say_goodbye(api: zhero.Node, params: dict[str, Any]) -> None:
    """Say goodbye on one node; with a frequency of 0 it never runs by itself."""
    api.log("----- Goodbye! ----", "blue")
