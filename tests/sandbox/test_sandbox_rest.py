"""The sandbox's plain JSON API: who is admitted, what is refused, and that pages fit together."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from omni.sandbox.rest_routes import ratings

LIST = "/rest/none/{}/ratings"


@pytest.mark.parametrize("auth", ["bearer", "header", "query", "basic", "oauth2", "magic"])
def test_without_credentials_nobody_is_admitted(client, auth):
    client.headers = {}
    answer = client.get(f"/rest/{auth}/page/ratings")
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "invalid token")
    assert client.get("/rest/none/page/ratings").status_code == 200


def test_tokens_are_given_for_the_right_secret_only(client):
    form = {"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "wrong"}
    assert client.post("/rest/oauth/token", data=form).json() == {"error": "invalid_client"}
    given = client.post("/rest/oauth/token", data=form | {"client_secret": "sandbox-test"}).json()
    headers = {"Authorization": f"Bearer {given['access_token']}"}
    assert client.get("/rest/oauth2/page/ratings", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=x", "limit"),
        ("page=-1", "page"),
        ("updated_since=2026-01-01", "updated_since"),
        ("updated_before=now", "updated_before"),
    ],
)
def test_wrong_parameters_are_refused(client, query, said):
    answer = client.get(f"{LIST.format('page')}?{query}")
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_pages_are_capped_and_say_how_many_there_are(client, demo):
    answer = client.get(LIST.format("page"), params={"limit": 5_000})
    everything = ratings(demo)
    assert answer.json() == {"data": everything[:100], "meta": {"total": len(everything), "has_more": True}}
    assert answer.headers["x-total-count"] == str(len(everything))
    assert client.get("/rest/none/spiral/ratings").status_code == 404
    assert client.get(LIST.format("page") + "/0").status_code == 404


def test_the_link_header_leads_through_the_window(client, demo):
    moments = sorted(datetime.fromisoformat(row["updated_at"]) for row in ratings(demo))
    since, before = moments[10].isoformat(), moments[60].isoformat()
    answer = client.get(
        LIST.format("link_header"), params={"limit": 20, "updated_since": since, "updated_before": before}
    )
    found = answer.json()["data"]
    while link := re.search(r'<([^>]+)>; rel="next"', answer.headers.get("link", "")):
        answer = client.get(link.group(1))
        found += answer.json()["data"]
    assert sorted(datetime.fromisoformat(row["updated_at"]) for row in found) == moments[10:60]
