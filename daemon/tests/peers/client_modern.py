"""The official Python client of 2026-07-28 (v2), driven from outside: python client_modern.py URL TOKEN < steps.json

Steps and answers are those of client.mjs.
"""

import asyncio
import json
import sys

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client


def say(value):
    print(json.dumps(value), flush=True)


def failure(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        return {"error": {"code": error.error.code, "message": error.error.message}}
    return {"error": {"code": None, "message": str(error)}}


def plain(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def one(client, step):
    if step.get("list"):
        tools, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            tools += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return {"tools": tools}
    if step.get("read"):
        return {"result": plain(await client.read_resource(step["read"]))}
    progress = []

    async def on_progress(done, total, message):
        progress.append(done)

    callback = on_progress if step.get("progress") else None
    result = await client.call_tool(step["call"], step.get("arguments", {}), progress_callback=callback)
    return {"result": plain(result), "progress": progress}


async def main(url, token, steps):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=headers) as http:
        async with Client(streamable_http_client(url, http_client=http), mode="2026-07-28") as client:
            for step in steps:
                try:
                    say(await one(client, step))
                except MCPError as error:
                    say(failure(error))


try:
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "", json.load(sys.stdin)))
except BaseException as error:  # a failed connection arrives as a group
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        raise
    say(failure(error))
