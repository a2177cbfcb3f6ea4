"""The official Python client of the session era (v1), driven from outside: python client.py URL TOKEN < steps.json

Steps and answers are those of client.mjs.
"""

import asyncio
import json
import sys

from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamablehttp_client


def say(value):
    print(json.dumps(value), flush=True)


def failure(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, McpError):
        return {"error": {"code": error.error.code, "message": error.error.message}}
    return {"error": {"code": None, "message": str(error)}}


def plain(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def one(session, step):
    if step.get("list"):
        tools, cursor = [], None
        while True:
            page = await session.list_tools(cursor)
            tools += [tool.name for tool in page.tools]
            cursor = page.nextCursor
            if cursor is None:
                return {"tools": tools}
    if step.get("read"):
        return {"result": plain(await session.read_resource(step["read"]))}
    if step.get("ping"):
        return {"result": plain(await session.send_ping())}
    progress = []

    async def on_progress(done, total, message):
        progress.append(done)

    callback = on_progress if step.get("progress") else None
    result = await session.call_tool(step["call"], step.get("arguments", {}), progress_callback=callback)
    return {"result": plain(result), "progress": progress}


async def main(url, token, steps):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with streamablehttp_client(url, headers=headers) as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            for step in steps:
                try:
                    say(await one(session, step))
                except McpError as error:
                    say(failure(error))


try:
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "", json.load(sys.stdin)))
except BaseException as error:  # a failed connection arrives as a group
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        raise
    say(failure(error))
