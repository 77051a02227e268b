"""Passwords are hidden, and what surrounds them stays."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centra.system.redaction import redacted, secrets_in

PASSWORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=3, max_size=20
)
PLAIN = st.text(st.characters(codec="ascii", categories=["Lu", "Nd"]), min_size=6, max_size=20)


@given(password=PASSWORDS)
def test_no_password_is_left_of_an_address(password: str) -> None:
    written = quote(password, safe="")
    for address in (
        f"postgresql://ada:{written}@db.example/centra",
        f"postgresql://db.example/centra?password={written}&sslmode=require",
        f"s3://bucket/prefix?endpoint_url=http://me:{written}@host",
        f"s3://bucket/prefix?endpoint_url={quote_plus(f'http://me:{written}@host')}",
    ):
        assert secrets_in(address) >= {password}
        for told in (f"failed: {password}!", f'Could not reach "{address}"', f"x={written}"):
            assert password not in redacted(told, address).replace("***", "")


@given(password=PLAIN)
def test_a_password_that_stands_in_a_message_is_hidden_without_being_known(password: str) -> None:
    for message in (
        f"cannot reach postgresql://ada:{password}@db/centra",
        f'Could not connect to the endpoint URL: "https://me:{password}@host/bucket"',
        f"host=db password={password} dbname=centra",
        f"host=db password = '{password} x' dbname=centra",
        f"invalid: ?sslpassword={password}&x=1",
        f"AWS_SECRET_ACCESS_KEY={password}",
        f"aws_session_token={password}",
        f"s3://me:{password}@bucket/prefix",
        f"postgresql://ada:x@{password}@db/centra",
    ):
        assert password not in redacted(message)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/srv/store",
        "/srv/what?/a:b@c/store",
        "s3://bucket/prefix?endpoint_url=http://127.0.0.1:8080&region=eu-west-1",
        "postgresql://ada@db.example:5432/centra",
        "host=db user=ada dbname=centra passfile=/home/ada/.pgpass",
        'connection to server at "127.0.0.1", port 5432 failed: Connection refused',
        'FATAL:  password authentication failed for user "ada"',
        "access key AKIA123, from env",
        "aws_access_key_id=AKIA123",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert redacted(text, text) == text
    assert secrets_in(text) == set()
