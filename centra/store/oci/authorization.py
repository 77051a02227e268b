"""Answering a registry that asks who is there: with a login, or with a token that one gets for it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from centra.errors import StoreError
from centra.store.oci.credentials import find_login

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from centra.store.oci.address import OciAddress
    from centra.store.oci.credentials import Login
    from centra.store.oci.transport import Transport

__all__ = ["Authorization", "authorize"]

_CHALLENGE = re.compile(r"(?:^|,\s*)(bearer|basic)\s+", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)
_CLIENT = "centra"
_REFUSED = (400, 401, 403)
"""What servers say of a login that is wrong, or may not do what is asked."""


@dataclass(frozen=True, kw_only=True)
class Authorization:
    """As whom a registry is asked."""

    header: str | None = field(default=None, repr=False)
    """What the header ``Authorization`` says; None for a request without it."""
    logged_in: bool = False
    """Whether there is a login. Registries give tokens to those who have none, too."""

    @property
    def headers(self) -> dict[str, str]:
        """For a request."""
        return {"Authorization": self.header} if self.header else {}


def authorize(response: BaseHTTPResponse, address: OciAddress, http: Transport) -> Authorization:
    """As whom to ask again for what was refused.

    Args:
        response: the refusal, with what the registry asks for.
        address: where it was asked.
        http: asks whoever gives tokens.

    Returns:
        Without a header where nothing is asked for, or there is nothing to answer with.

    Raises:
        StoreError: the logins cannot be read, the registry sends elsewhere without TLS, or no token
            can be had.
        HTTPError: of urllib3; whoever gives tokens cannot be reached.
    """
    challenge = response.headers.get("WWW-Authenticate", "")
    schemes = [match[1].lower() for match in _CHALLENGE.finditer(challenge)]
    login = find_login(address.login_names)
    header = None
    if "bearer" in schemes:
        asked = dict(_PARAMETER.findall(challenge))
        realm = asked.pop("realm", "")
        scheme = urlsplit(realm).scheme
        if scheme != "https" and not (address.plain_http and scheme == "http"):
            raise StoreError(
                f"{address}: its registry gets tokens from {realm[:200]!r}, without TLS; no login is "
                "sent there",
                code="oci-realm",
            )
        parameters = {key: asked[key] for key in ("service", "scope") if key in asked}
        token = _token(address, realm, parameters, login, http)
        header = token and f"Bearer {token}"
    elif "basic" in schemes and login and not login.refresh_token:
        header = login.basic
    return Authorization(header=header, logged_in=login is not None)


def _token(
    address: OciAddress,
    realm: str,
    parameters: dict[str, str],
    login: Login | None,
    http: Transport,
) -> str | None:
    """A token of the server at ``realm``; None where it refuses the login."""
    if login and login.refresh_token:
        form = {
            **parameters,
            "grant_type": "refresh_token",
            "refresh_token": login.secret,
            "client_id": _CLIENT,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = http.send("POST", realm, headers=headers, body=urlencode(form).encode())
    else:
        headers = {"Authorization": login.basic} if login else {}
        mark = "&" if "?" in realm else "?"
        response = http.send("GET", f"{realm}{mark}{urlencode(parameters)}", headers=headers)
    data = http.read(response)
    if response.status in _REFUSED:
        return None
    try:
        found = json.loads(data) if response.status == 200 else {}
        return str(found.get("token") or found["access_token"])
    except (ValueError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{address}: {urlsplit(realm).netloc}, which gives tokens for its registry, answered with "
            f"status {response.status} and no token",
            code="oci-refused",
            address=str(address),
        ) from error
