"""Argilla's real server, with a search engine that finds nothing and a Redis that lives in memory: neither is at hand.

Run by the Python of an environment with argilla-server and fakeredis: serve_argilla.py FOLDER PORT KEY
"""

import asyncio
import os
import sys

folder, port, key = sys.argv[1:]
os.environ |= {"ARGILLA_HOME_PATH": folder, "ARGILLA_SEARCH_ENGINE": "none", "ARGILLA_ENABLE_TELEMETRY": "0"}

import fakeredis  # noqa: E402
import redis  # noqa: E402

redis.from_url = lambda url: fakeredis.FakeRedis()

import uvicorn  # noqa: E402
from argilla_server.cli.database.migrate import migrate_db  # noqa: E402
from argilla_server.cli.database.users.create import _create  # noqa: E402
from argilla_server.models import UserRole  # noqa: E402
from argilla_server.search_engine.base import SearchEngine  # noqa: E402


async def nothing(*_, **__):
    return {"total": 0}


async def new_instance(kind):
    return kind()


methods = {name: nothing for name in SearchEngine.__abstractmethods__} | {"new_instance": classmethod(new_instance)}
SearchEngine.register("none")(type("NoSearch", (SearchEngine,), methods))
migrate_db("head")
for name, role in (("owner", UserRole.owner), ("helper", UserRole.annotator)):
    asyncio.run(_create(name, name, role, "not-a-secret-of-anybody", api_key=f"{key}-{name}", workspace=["people"]))
uvicorn.run("argilla_server:app", host="127.0.0.1", port=int(port), log_level="warning")
