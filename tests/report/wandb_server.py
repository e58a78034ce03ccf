"""A W&B server on this machine that knows reports and views of workspaces, and nothing else."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """What the server holds and how it answers; `url` is where, once it is entered."""

    def __init__(self) -> None:
        #: Names of GraphQL operations that are answered with an error.
        self.refuses: tuple[str, ...] = ()
        self.projects: set[str] = set()
        #: Of reports and views, by id; None where one was deleted.
        self.views: dict[str, dict[str, Any] | None] = {}

    def __enter__(self) -> Server:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = server.answer(json.loads(body)) if self.path == "/graphql" else {}
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, format: str, *args: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a GraphQL request."""
        name = request["query"].split("(")[0].split("{")[0].split()[-1]
        if name in self.refuses:
            return {"errors": [{"message": "permission denied"}]}
        return {"data": getattr(self, name, lambda values: {})(request.get("variables") or {})}

    def Viewer(self, values: dict[str, Any]) -> dict[str, Any]:
        return {
            "viewer": {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        }

    def GetDefaultEntity(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "1", "entity": "me"}}

    def GetProjects(self, values: dict[str, Any]) -> dict[str, Any]:
        empty = {"isBenchmark": False, "createdAt": "2026-01-01T00:00:00Z", "user": None, "__typename": "Project"}
        nodes = [{**empty, "id": name, "name": name, "entityName": values["entity"]} for name in sorted(self.projects)]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": page, "edges": [{"node": node} for node in nodes]}}

    def UpsertModel(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values["input"]["name"] if "input" in values else values["name"]
        self.projects.add(name)
        return {"upsertModel": {"project": {"id": name, "name": name}, "model": {"name": name}, "inserted": True}}

    CreateProject = UpsertModel

    def upsertView(self, values: dict[str, Any]) -> dict[str, Any]:
        assert values["projectName"] in self.projects, "the real one refuses a project that is not there"
        number = values.get("id") or base64.b64encode(f"View:{len(self.views)}".encode()).decode()
        known = self.views.get(number)
        project = {"id": "1", "name": values["projectName"], "entityName": values["entityName"]}
        self.views[number] = {**values, "id": number, "project": project}
        return {"upsertView": {"view": self.views[number], "inserted": known is None}}

    UpsertView2 = upsertView

    def SpecificReport(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"view": self.views.get(values["reportId"])}

    def View(self, values: dict[str, Any]) -> dict[str, Any]:
        found = [view for view in self.views.values() if view and view["name"] == values["viewName"]]
        return {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}
