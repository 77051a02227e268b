"""Answering a registry that asks who is there: with a login, or with a token that one gets for it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from centra.errors import StoreError
from centra.store.oci.credentials import find_login

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from centra.store.oci.address import OciAddress
    from centra.store.oci.credentials import Login
    from centra.store.oci.transport import Transport

__all__ = ["authorization"]

_CHALLENGE = re.compile(r"(?:^|,\s*)(bearer|basic)\s+", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)
_CLIENT = "centra"


def authorization(response: BaseHTTPResponse, address: OciAddress, http: Transport) -> str | None:
    """What the header ``Authorization`` must say for a request that was refused.

    Args:
        response: the refusal, with what the registry asks for.
        address: where it was asked.
        http: asks whoever gives tokens.

    Returns:
        None where nothing is asked for, or there is no login to answer with.

    Raises:
        StoreError: the logins cannot be read, or the registry sends elsewhere without TLS.
        HTTPError: of urllib3; whoever gives tokens cannot be reached.
    """
    challenge = response.headers.get("WWW-Authenticate", "")
    schemes = [match[1].lower() for match in _CHALLENGE.finditer(challenge)]
    login = find_login(address.login_names)
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
        token = _token(realm, parameters, login, http)
        return token and f"Bearer {token}"
    return login.basic if "basic" in schemes and login and not login.refresh_token else None


def _token(
    realm: str, parameters: dict[str, str], login: Login | None, http: Transport
) -> str | None:
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
    if response.status != 200:
        return None
    try:
        found = json.loads(data)
        return str(found.get("token") or found["access_token"])
    except (ValueError, KeyError, AttributeError):
        return None
