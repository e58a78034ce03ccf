"""What the hub would refuse is told before anything starts, by a server on this machine that stands in for the hub."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aliquot.models.hub import check_repository
from aliquot.models.spec import Model
from tiny_model import save_tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secretsecretsecretsecret"
NO_LONGER = "a" * 40


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Serve org/open, org/gated (to nobody but TOKEN), org/pickled; an empty cache and no token to begin with."""
    import huggingface_hub
    from huggingface_hub import constants
    from transformers.utils import hub as transformers_hub

    files = save_tiny_model(tmp_path / "served")

    class Hub(BaseHTTPRequestHandler):
        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self):
            server.asked.append(self.path)
            parts = self.path.partition("?")[0].strip("/").removeprefix("api/models/").split("/")
            repository, action, rest = "/".join(parts[:2]), parts[2], parts[3:]
            if repository not in ("org/open", "org/gated", "org/pickled"):
                return self.answer(404, X_Error_Code="RepoNotFound")
            is_file = action == "resolve"
            closed = repository == "org/gated" and TOKEN not in self.headers.get("Authorization", "")
            if closed and (is_file or action == "auth-check"):
                status = 403 if self.headers.get("Authorization") else 401
                return self.answer(status, X_Error_Code="GatedRepo")
            if action == "auth-check":
                return self.answer(200, b"{}")
            if rest[:1] != [COMMIT]:
                return self.answer(404, X_Error_Code="RevisionNotFound")
            if is_file and (files / rest[1]).is_file():
                body = (files / rest[1]).read_bytes()
                return self.answer(200, body, ETag=f'"{rest[1]}"', X_Repo_Commit=COMMIT)
            if action == "revision" and len(rest) == 1:
                weights = "pytorch_model.bin" if repository == "org/pickled" else "model.safetensors"
                siblings = [{"rfilename": name} for name in ("config.json", "tokenizer.json", weights)]
                return self.answer(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transformers_hub.hf_api(), "endpoint", url)  # made once, with the address of the first hub
    huggingface_hub.close_session()
    check_repository.cache_clear()

    def stop():
        server.shutdown()
        thread.join()
        server.server_close()
        huggingface_hub.close_session()

    server.stop = stop
    yield server
    if thread.is_alive():
        stop()


def refusal(path, revision=COMMIT):
    with pytest.raises(ValueError, match=rf"^model.path={path}") as refused:
        Model(path, revision=revision).check()
    message = str(refused.value)
    assert TOKEN not in message
    assert "\n" not in message
    return message


def test_an_open_model_passes_and_nothing_but_its_config_is_downloaded(hub):
    Model("org/open", revision=COMMIT).check()
    assert {path for path in hub.asked if "resolve" in path} == {f"/org/open/resolve/{COMMIT}/config.json"}
    num_asked = len(hub.asked)
    Model("org/open", revision=COMMIT).check()
    assert len(hub.asked) == num_asked


def test_a_restricted_model_says_where_to_ask_and_how_to_log_in(hub, monkeypatch):
    assert "ask for access at https://huggingface.co/org/gated, then run `hf auth login`" in refusal("org/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_somebodyelse")
    assert "the account that is logged in has none (`hf auth whoami`)" in refusal("org/gated")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    Model("org/gated", revision=COMMIT).check()


def test_a_missing_repository_or_revision_is_told(hub):
    assert "the hub has no such repository, or it is private; check the spelling" in refusal("org/mispelt")
    message = refusal("org/open", NO_LONGER)
    assert f"no revision {NO_LONGER}; set model.revision to one of https://huggingface.co/org/open/commits" in message


def test_pickled_weights_are_refused_without_downloading_them(hub):
    assert "holds pickled weights only (pytorch_model.bin), which are not read" in refusal("org/pickled")


def test_a_family_that_is_not_known_is_told_from_the_config_alone(hub):
    assert Model("org/open", revision=COMMIT).family() == "llama"
    assert [path for path in hub.asked if "resolve" in path] == [f"/org/open/resolve/{COMMIT}/config.json"] * 2


def test_a_chat_template_is_looked_for_before_the_weights_are_downloaded(hub):
    with pytest.raises(ValueError, match="the tokenizer of org/open has no chat template"):
        Model("org/open", revision=COMMIT, template="chat").check()
    assert not [path for path in hub.asked if "safetensors" in path]


@pytest.mark.slow
def test_without_a_network_what_is_cached_whole_is_used_and_the_rest_refused(hub, tmp_path):
    model = Model("org/open", revision=COMMIT)
    first = model.load().state_dict()
    assert len(model.load_tokenizer()) > 20
    hub.stop()
    check_repository.cache_clear()
    model.check()
    again = model.load().state_dict()
    assert all((again[name] == first[name]).all() for name in first)
    message = refusal("org/gated")
    assert "is not in the local cache (nothing of that revision), and the Hugging Face hub cannot be asked" in message
    assert f"`hf download org/gated --revision {COMMIT}`" in message
    (weights,) = (tmp_path / "cache").rglob("snapshots/*/model.safetensors")
    weights.unlink()
    check_repository.cache_clear()
    assert "holds no weights" in refusal("org/open")


def test_offline_mode_is_told(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the Hugging Face hub cannot be asked: " in refusal("org/open")
    assert hub.asked == []
