"""A real Label Studio on loopback, and the people who work in it."""

import os
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from running_server import free_port, running

OWNER, HELPER, PASSWORD = "owner@example.com", "helper@example.com", "not-a-secret-of-anybody"
SECONDS_TO_START = 300  # it migrates an empty database first: 70 s on one busy core


class Person:
    """Somebody who is logged in, and does by the server's API what the page does when they click."""

    def __init__(self, url, email, page="login"):
        self.client = httpx2.Client(base_url=url, follow_redirects=True, timeout=60)
        self.client.get(f"/user/{page}/")
        form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": self.client.cookies["csrftoken"]}
        answer = self.client.post(f"/user/{page}/", data=form, headers={"Referer": url})
        assert answer.is_success and "/user/" not in str(answer.url), (answer.url, answer.text)
        self.client.headers |= {"X-CSRFToken": self.client.cookies["csrftoken"], "Referer": url}

    def post(self, path, **given):
        answer = self.client.post(path, json=given)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def get(self, path, **asked):
        answer = self.client.get(path, params=asked)
        assert answer.is_success, answer.text
        return answer

    def respond(self, task, text):
        self.post(f"/api/tasks/{task}/annotations/", result=[given("response", "textarea", text=[text])])

    def skip(self, task, reason, comment):
        result = [given("skip", "choices", choices=[reason]), given("comment", "textarea", text=[comment])]
        self.post(f"/api/tasks/{task}/annotations/", result=result)

    def press_skip(self, task):
        self.post(f"/api/tasks/{task}/annotations/", result=[], was_cancelled=True)

    def draft(self, task, text):
        self.post(f"/api/tasks/{task}/drafts", result=[given("response", "textarea", text=[text])], lead_time=1)

    def predict(self, task, text):
        self.post("/api/predictions/", task=task, result=[given("response", "textarea", text=[text])])


def given(name, kind, **value):
    return {"from_name": name, "to_name": "prompt", "type": kind, "value": value}


class RunningLabelStudio:
    """The server, its owner, one more annotator, and a personal access token."""

    def __init__(self, url):
        self.url = url
        self.owner, self.helper = Person(url, OWNER), Person(url, HELPER, page="signup")
        self.token = self.owner.post("/api/token/")["token"]

    def close(self):
        self.owner.client.close()
        self.helper.client.close()

    def projects(self, title):
        found = self.owner.get("/api/projects", page_size=100).json()["results"]
        return [project for project in found if project["title"] == title]

    def tasks(self, title):
        """Return prompt_id -> number of the task, of the only project of this title."""
        (project,) = self.projects(title)
        tasks = self.owner.get("/api/tasks/", project=project["id"], page_size=1000).json()["tasks"]
        assert len({task["data"]["prompt_id"] for task in tasks}) == len(tasks), "a prompt is there twice"
        return {task["data"]["prompt_id"]: task["id"] for task in tasks}


@contextmanager
def label_studio(folder):
    """Run a server with an empty database in `folder`."""
    executable = Path(os.environ.get("ALIQUOT_LABEL_STUDIO", "")).absolute()
    if not executable.is_file():
        pytest.skip("ALIQUOT_LABEL_STUDIO names no executable of label-studio: `make label-studio` sets one up")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(executable), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    settings = {
        "HOME": str(folder),
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": OWNER,
        "LABEL_STUDIO_PASSWORD": PASSWORD,
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "LOG_LEVEL": "WARNING",
    }
    server = running(command, folder, f"{url}/health", SECONDS_TO_START, **settings)
    with server, closing(RunningLabelStudio(url)) as people:
        yield people
