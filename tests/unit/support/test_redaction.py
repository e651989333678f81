"""What is a secret goes; what a helper needs to read stays."""

from __future__ import annotations

import base64
import json
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.redaction import GONE, Redactor, is_secret_name, secrets_of_tree

pytestmark = pytest.mark.unit

KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\nabc=\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ('password = "hunter2 and more"', "hunter2 and more"),
        ("password = '''", "'''x"),
        ('wrong_password = """\nover\nlines"""', "lines"),
        ('{"password": "hun\\"ter2", "b": 1}', 'hun\\"ter2'),
        ("GRIDPIVOT_AGENT__ASIC__CREDENTIALS__SITE__PASSWORD=hunter2", "hunter2"),
        ("authorization: Bearer abcdef123456", "abcdef123456"),
        ("authorization: Basic YWRtaW46YWRtaW4=", "YWRtaW46YWRtaW4="),
        ("http://admin:hunter2@10.0.0.1/x", "hunter2"),
        ("enrol with gpt1.ABC-def_123.xyz now", "ABC-def_123"),
        (f"before\n{KEY}\nafter", "MC4CAQAwBQYDK2VwBCIEIJ"),
        (KEY[:60], "MC4CAQAw"),
        (json.dumps({"pem": KEY}), "MC4CAQAw"),
        ("api_key: s3cr3t, next", "s3cr3t"),
        ('headers = { "X-Api-Key" = "s3cr3t" }', "s3cr3t"),
        ("https://prices.example/day?key=s3cr3t&from=now", "s3cr3t"),
        ("token=" + "x" * 40, "x" * 40),
    ],
)
def test_secret_by_its_name_or_shape_is_taken_out(line: str, secret: str) -> None:
    assert secret not in Redactor().text(line)


@pytest.mark.parametrize(
    "line",
    [
        'password_file = "/etc/gridpivot/whatsminer.password"',
        'operator_token_file = "operator.token"',
        "plan 3.17 accepted, ceiling 21.5 MW",
        '{"ledger_id": "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f", "import_j": 123456789}',
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "GPU-51300000-0000-4000-8000-000000000000 at 650 W",
        "/var/lib/gridpivot/agent/spool.sqlite: database or disk is full",
        "basic settings are good",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert Redactor().text(line) == line


@given(st.randoms(use_true_random=False))
def test_token_of_256_random_bits_is_taken_out_anywhere(source: random.Random) -> None:
    token = base64.urlsafe_b64encode(random.Random(source.getrandbits(64)).randbytes(32)).decode().rstrip("=")
    assert token[:24] not in Redactor().text(f"reason: {token}, thanks")


SECRETS = st.text(string.ascii_lowercase + '"\\ ', min_size=6, max_size=40).filter(lambda s: len(s.strip()) > 5)


@given(SECRETS, st.text("0123456789:;\n", max_size=20), st.text("0123456789:;\n", max_size=20))
def test_secret_that_is_known_is_taken_out_of_texts_and_trees(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    text = redactor.text(before + secret + after)
    tree = json.dumps(redactor.tree({"a": [before + secret, {"b": secret + after}], secret: 1}))
    bare = secret.strip()
    if bare not in GONE:
        assert bare not in text and json.dumps(bare)[1:-1] not in tree


def test_tree_keeps_what_is_plain_and_empties_what_is_called_a_secret() -> None:
    tree = {"a": 1, "none": None, "on": True, "password": "x", "token": 5, "password_file": "/p", "list": ["y", 1.5]}
    assert Redactor().tree(tree) == tree | {"password": GONE, "token": GONE}


def test_names_of_secrets() -> None:
    assert [n for n in ("password", "PASSWORD", "x_token", "token_id", "key_file", "secret_sha256") if is_secret_name(n)] == [
        "password", "PASSWORD", "x_token",
    ]  # fmt: skip
    assert list(secrets_of_tree({"site": [{"username": "u", "password": "p"}], "b": {"token": "t"}})) == ["p", "t"]
