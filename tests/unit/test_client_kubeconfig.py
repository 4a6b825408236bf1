"""What a kubeconfig may say, and that a refusal names file, field and what would be right."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netemu.client.kubeconfig import Credentials, load_kubeconfig
from netemu.lab.authority import Authority, pem
from netemu.model.errors import UserError

AUTHORITY = Authority.create("test-ca")
CERTIFICATE, KEY = AUTHORITY.issue("somebody")
OTHER_KEY = AUTHORITY.issue("somebody else")[1]
CA = pem(AUTHORITY.certificate)


def inline(content: bytes) -> str:
    return base64.b64encode(content).decode()


def config(cluster: Any = None, user: Any = None) -> dict[str, Any]:
    """A good one, with these fields of the cluster and of the user on top."""
    proofs = {"client-certificate-data": inline(CERTIFICATE), "client-key-data": inline(KEY)}
    server = {"server": "https://192.0.2.1:6443", "certificate-authority-data": inline(CA)}
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {**server, **(cluster or {})}}],
        "users": [{"name": "u", "user": proofs if user is None else user}],
    }


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], Credentials]:
    def load(value: Any) -> Credentials:
        path = tmp_path / "config"
        path.write_bytes(msgspec.json.encode(value))
        return load_kubeconfig(path)

    return load


def test_certificates_stand_inside_or_in_files_beside(load: Callable[[Any], Credentials], tmp_path: Path) -> None:
    for name, content in (("ca.crt", CA), ("me.crt", CERTIFICATE), ("me.key", KEY)):
        (tmp_path / name).write_bytes(content)
    files = {"client-certificate": "me.crt", "client-key": "me.key"}

    inside = load(config())
    beside = load(config({"certificate-authority-data": "", "certificate-authority": "ca.crt"}, files))

    assert inside == beside
    assert inside.client_certificate == CERTIFICATE.decode()


def test_a_token_stands_inside_or_in_a_file_beside(load: Callable[[Any], Credentials], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")

    assert load(config(user={"token": "open"})).token == "open"
    assert load(config(user={"tokenFile": "token"})).token == "secret"


@pytest.mark.parametrize(
    ("server", "url"),
    [("192.0.2.1:6443", "https://192.0.2.1:6443"), ("http://[2001:db8::1]:8080/", "http://[2001:db8::1]:8080")],
)
def test_a_server_without_a_scheme_is_https_where_there_is_something_to_prove(
    load: Callable[[Any], Credentials], server: str, url: str
) -> None:
    assert load(config({"server": server})).server == url


def without(section: str, inner: str, key: str) -> dict[str, Any]:
    found = config()
    del found[section][0][inner][key]
    return found


BAD = {
    "a server of another scheme": (config({"server": "ftp://127"}), "server: 'ftp://127': expected https://HOST:PORT"),
    "a port that is none": (config({"server": "https://h:x"}), "server: 'https://h:x': expected https://HOST:PORT"),
    "no server": (without("clusters", "cluster", "server"), "clusters[0].cluster.server: missing; expected https://"),
    "a server that is a number": (config({"server": 1}), "clusters[0].cluster.server: expected text, got 1"),
    "contexts of words": ({**config(), "contexts": ["foo"]}, "contexts[0]: expected a mapping with name and context"),
    "a context that is a word": (
        {**config(), "contexts": [{"name": "here", "context": "foo"}]},
        "contexts[0]: expected a mapping with name and context, which is a mapping too",
    ),
    "users that are no list": ({**config(), "users": {"u": {}}}, "users: expected a list of entries"),
    "no current context": ({**config(), "current-context": ""}, "no current-context; expected the name of one"),
    "a context that is not there": ({**config(), "current-context": "x"}, "no context named 'x' in contexts"),
    "data that is no base64": (
        config(user={"client-certificate-data": "zzz"}),
        "users[0].user.client-certificate-data: expected base64 of a text in PEM",
    ),
    "an authority that is no certificate": (
        config({"certificate-authority-data": inline(b"x")}),
        "certificate-authority: expected certificates in PEM",
    ),
    "a certificate that is none": (
        config(user={"client-certificate-data": inline(b"x"), "client-key-data": inline(KEY)}),
        "client-certificate, client-key: expected a certificate and the key that belongs to it",
    ),
    "the key of another": (
        config(user={"client-certificate-data": inline(CERTIFICATE), "client-key-data": inline(OTHER_KEY)}),
        "client-certificate, client-key: expected a certificate and the key that belongs to it",
    ),
    "a certificate without a key": (
        without("users", "user", "client-key-data"),
        "client-key: expected beside client-certificate, there is none",
    ),
    "a file that is not there": (config(user={"tokenFile": "x"}), "users[0].user.tokenFile: "),
    "a command that gives tokens": (
        config(user={"exec": {"command": "aws"}}),
        "users[0].user.exec: not supported here; known are token, tokenFile, client-certificate",
    ),
    "a provider of tokens": (config(user={"auth-provider": {"name": "gcp"}}), "users[0].user.auth-provider: not supp"),
    "a password": (config(user={"username": "u", "password": "p"}), "users[0].user.username: not supported here"),
    "a proxy": (config({"proxy-url": "http://p"}), "clusters[0].cluster.proxy-url: not supported here"),
}


@pytest.mark.parametrize(("value", "why"), BAD.values(), ids=BAD)
def test_a_refusal_names_file_and_field(load: Callable[[Any], Credentials], value: Any, why: str) -> None:
    with pytest.raises(UserError) as refused:
        load(value)

    assert "/config: " + why in str(refused.value)
    assert "\n" not in str(refused.value)
