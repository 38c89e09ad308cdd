"""The sandbox's Salesforce: queries, records, bulk jobs and logins over HTTP."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.testclient import TestClient

from omni.sandbox.company import load_company
from omni.sandbox.salesforce_oauth import CLIENT_ID, JWT_GRANT, REFRESH_TOKEN, USER

ROOT = "/services/data/v68.0"
TOKEN = "sandbox-test"


def ask(client, soql, *, deleted=False, **headers):
    return client.get(f"{ROOT}/{'queryAll' if deleted else 'query'}", params={"q": soql}, headers=headers)


def control(client, **body):
    reply = client.post("/_sandbox/salesforce", json=body)
    assert reply.status_code == 200, reply.text


def code(reply):
    return reply.status_code, reply.json()[0]["errorCode"]


def rows_of(reply):
    return list(csv.DictReader(io.StringIO(reply.text)))


def ended(client, kind, job):
    for _ in range(5):
        body = client.get(f"{ROOT}/jobs/{kind}/{job}").json()
        if body["state"] in ("JobComplete", "Failed", "Aborted"):
            return body
    raise AssertionError(body)


def test_pages_of_a_query_hold_each_record_once(client: TestClient) -> None:
    options = {"Sforce-Query-Options": "batchSize=1000"}
    body = ask(client, "SELECT Id FROM Contact", **options).json()
    total, ids = body["totalSize"], [r["Id"] for r in body["records"]]
    while not body["done"]:
        assert "/query/" in body["nextRecordsUrl"]
        body = client.get(body["nextRecordsUrl"]).json()
        ids += [r["Id"] for r in body["records"]]
    assert (
        len(ids) == len(set(ids)) == total == ask(client, "SELECT COUNT() FROM Contact").json()["totalSize"]
    )
    assert code(client.get(f"{ROOT}/query/unknown-2000")) == (400, "INVALID_QUERY_LOCATOR")


def test_the_org_tells_what_the_crm_knows(client: TestClient, demo) -> None:
    archived = sum(r.archived_ms is not None for r in demo.crm["contacts"].records)
    everyone = ask(client, "SELECT COUNT() FROM Contact", deleted=True).json()["totalSize"]
    living = ask(client, "SELECT COUNT() FROM Contact").json()["totalSize"]
    assert archived
    assert (everyone, everyone - living) == (len(demo.crm["contacts"].records), archived)
    won = ask(client, "SELECT Amount, Account.Name FROM Opportunity WHERE StageName = 'Closed Won'").json()
    amounts = [
        float(r.properties["amount"] or 0)
        for r in demo.crm["deals"].records
        if r.properties["dealstage"] == "closedwon"
    ]
    assert sum(r["Amount"] or 0 for r in won["records"]) == pytest.approx(sum(amounts), abs=0.001)
    deal = ask(
        client,
        "SELECT Id, Account.Name, Account.Owner.Name, Owner.Name FROM Opportunity WHERE AccountId != null",
    ).json()["records"][0]
    assert deal["Account"]["attributes"]["type"] == "Account"
    assert deal["Account"]["Owner"]["Name"]


def test_describe_tells_types_and_relationships(client: TestClient) -> None:
    names = [s["name"] for s in client.get(f"{ROOT}/sobjects").json()["sobjects"]]
    assert names == ["Account", "Contact", "Opportunity", "User", "Product2"]
    fields = {f["name"]: f for f in client.get(f"{ROOT}/sobjects/Contact/describe").json()["fields"]}
    assert fields["AccountId"]["relationshipName"] == "Account"
    assert fields["AccountId"]["referenceTo"] == ["Account"]
    assert fields["MailingAddress"]["type"] == "address"
    assert fields["MailingCity"]["compoundFieldName"] == "MailingAddress"
    assert fields["External_Id__c"]["custom"]
    assert fields["External_Id__c"]["externalId"]
    assert code(client.get(f"{ROOT}/sobjects/Nothing/describe")) == (404, "NOT_FOUND")


def test_records_are_written_and_read_back(client: TestClient) -> None:
    made = client.post(f"{ROOT}/sobjects/Account", json={"Name": "New", "NumberOfEmployees": 4})
    one = f"{ROOT}/sobjects/Account/{made.json()['id']}"
    assert client.get(one, params={"fields": "Name,NumberOfEmployees"}).json()["NumberOfEmployees"] == 4
    assert client.patch(one, json={"Name": "Newer"}).status_code == 204
    assert client.get(one).json()["Name"] == "Newer"
    assert code(client.patch(one, json={"Name": None})) == (400, "REQUIRED_FIELD_MISSING")
    assert client.delete(one).status_code == 204
    assert code(client.get(one)) == (404, "ENTITY_IS_DELETED")
    control(client, action="undelete", object="Account", id=made.json()["id"])
    assert client.get(one).status_code == 200
    external = f"{ROOT}/sobjects/Account/External_Id__c/C-0001"
    assert client.patch(external, json={"Website": "https://one.example"}).json()["created"] is False
    assert client.patch(external[:-1] + "x", json={"Name": "X"}).status_code == 201


def test_sessions_versions_and_the_days_requests(client: TestClient) -> None:
    reply = ask(client, "SELECT COUNT() FROM User")
    assert reply.headers["sforce-limit-info"] == "api-usage=1/100000"
    bad = client.get(f"{ROOT}/limits", headers={"Authorization": "Bearer other"})
    assert code(bad) == (401, "INVALID_SESSION_ID")
    assert client.get("/services/data/v59.0/limits").status_code == 200
    assert code(client.get("/services/data/v99.0/limits")) == (404, "NOT_FOUND")
    control(client, action="usage", used=5, allowed=5)
    assert code(client.get(f"{ROOT}/limits")) == (403, "REQUEST_LIMIT_EXCEEDED")


def test_a_query_job_gives_what_the_query_gives(client: TestClient) -> None:
    soql = "SELECT Id, Name, Account.Name, Amount, IsWon FROM Opportunity"
    job = client.post(f"{ROOT}/jobs/query", json={"operation": "query", "query": soql}).json()
    assert job["state"] == "UploadComplete"
    assert code(client.get(f"{ROOT}/jobs/query/{job['id']}/results")) == (400, "INVALIDJOBSTATE")
    total = ended(client, "query", job["id"])["numberRecordsProcessed"]
    assert code(client.get(f"/services/data/v59.0/jobs/query/{job['id']}"))[0] == 409
    rows, locator = [], ""
    while locator != "null":
        params = {"maxRecords": "250"} | ({"locator": locator} if locator else {})
        reply = client.get(f"{ROOT}/jobs/query/{job['id']}/results", params=params)
        part = rows_of(reply)
        assert int(reply.headers["sforce-numberofrecords"]) == len(part)
        rows, locator = rows + part, reply.headers["sforce-locator"]
    over_rest = ask(client, soql).json()["records"]
    assert len(rows) == total == len(over_rest)
    for row, record in zip(rows, over_rest, strict=True):
        assert row["Id"] == record["Id"]
        assert row["Account.Name"] == ((record["Account"] or {}).get("Name") or "")
        assert row["Amount"] == ("" if record["Amount"] is None else str(record["Amount"]))
    assert client.delete(f"{ROOT}/jobs/query/{job['id']}").status_code == 204


def test_jobs_refuse_what_bulk_does_not_serve_and_may_fail(client: TestClient) -> None:
    def create(soql):
        return client.post(f"{ROOT}/jobs/query", json={"operation": "queryAll", "query": soql})

    assert "compound" in create("SELECT MailingAddress FROM Contact").json()[0]["message"]
    assert code(create("SELECT Nothing FROM Contact")) == (400, "INVALID_FIELD")
    control(client, action="fate", state="Failed", message="InternalServerError: out of luck")
    body = ended(client, "query", create("SELECT Id FROM Contact").json()["id"])
    assert (body["state"], body["errorMessage"]) == ("Failed", "InternalServerError: out of luck")
    job = create("SELECT Id FROM Contact").json()["id"]
    assert client.patch(f"{ROOT}/jobs/query/{job}", json={"state": "Aborted"}).json()["state"] == "Aborted"


def ingest(client, operation, text, **asked):
    body = {"object": "Contact", "operation": operation, "contentType": "CSV", **asked}
    job = client.post(f"{ROOT}/jobs/ingest", json=body).json()
    upload = client.put(f"/{job['contentUrl']}", content=text.encode(), headers={"Content-Type": "text/csv"})
    assert upload.status_code == 201
    client.patch(f"{ROOT}/jobs/ingest/{job['id']}", json={"state": "UploadComplete"})
    info = ended(client, "ingest", job["id"])
    results = (
        rows_of(client.get(f"{ROOT}/jobs/ingest/{job['id']}/{which}"))
        for which in ("successfulResults", "failedResults", "unprocessedRecords")
    )
    return info, *results


def test_an_upsert_creates_changes_clears_and_refuses_row_by_row(client: TestClient) -> None:
    text = (
        "External_Id__c,LastName,Email,Title\n"
        "L-00001,Busch,#N/A,\n"
        'N-1,"New, with ""comma""",new@example.com,Boss\n'
        "N-2,Bad,not-an-address,\n"
        ",Nobody,,\n"
    )
    before = ask(client, "SELECT Title FROM Contact WHERE External_Id__c = 'L-00001'").json()["records"][0]
    info, good, bad, rest = ingest(client, "upsert", text, externalIdFieldName="External_Id__c")
    assert (info["numberRecordsProcessed"], info["numberRecordsFailed"]) == (4, 2)
    assert [row["sf__Created"] for row in good] == ["false", "true"]
    assert [row["sf__Error"].split(":")[0] for row in bad] == ["INVALID_EMAIL_ADDRESS", "MISSING_ARGUMENT"]
    assert rest == []
    after = ask(client, "SELECT Email, Title FROM Contact WHERE External_Id__c = 'L-00001'").json()[
        "records"
    ][0]
    assert after["Email"] is None
    assert after["Title"] == before["Title"]
    new = ask(client, "SELECT LastName FROM Contact WHERE External_Id__c = 'N-1'").json()["records"]
    assert [r["LastName"] for r in new] == ['New, with "comma"']


def test_an_upload_takes_effect_when_its_job_ends_and_not_if_it_was_aborted(client: TestClient) -> None:
    def titles() -> list[str | None]:
        soql = "SELECT Title FROM Contact WHERE External_Id__c IN ('L-00001', 'L-00002')"
        return [row["Title"] for row in ask(client, soql).json()["records"]]

    before, jobs = titles(), []
    for title in ("One", "Two"):
        body = {"object": "Contact", "operation": "upsert", "externalIdFieldName": "External_Id__c"}
        job = client.post(f"{ROOT}/jobs/ingest", json=body).json()
        text = f"External_Id__c,Title\nL-00001,{title}\nL-00002,{title}\n"
        client.put(f"/{job['contentUrl']}", content=text.encode(), headers={"Content-Type": "text/csv"})
        client.patch(f"{ROOT}/jobs/ingest/{job['id']}", json={"state": "UploadComplete"})
        jobs.append(f"{ROOT}/jobs/ingest/{job['id']}")
    aborted, done = jobs
    assert client.get(aborted).json()["state"] == "InProgress"
    assert client.patch(aborted, json={"state": "Aborted"}).json()["state"] == "Aborted"
    assert client.get(done).json()["state"] == "InProgress"
    assert titles() == before
    assert client.get(done).json()["state"] == "JobComplete"
    assert [client.get(aborted).json()["state"] for _ in range(3)] == ["Aborted"] * 3
    assert titles() == ["Two", "Two"]
    rest = rows_of(client.get(f"{aborted}/unprocessedRecords"))
    assert [row["Title"] for row in rest] == ["One", "One"]
    assert rows_of(client.get(f"{aborted}/successfulResults")) == []
    assert code(client.patch(done, json={"state": "Aborted"})) == (400, "INVALIDJOBSTATE")


def test_deleting_by_job_puts_records_into_the_recycle_bin(client: TestClient) -> None:
    one = ask(client, "SELECT Id FROM Contact LIMIT 1").json()["records"][0]["Id"]
    info, good, _, _ = ingest(client, "delete", f"Id\n{one}\n")
    assert info["numberRecordsFailed"] == 0
    assert [row["sf__Id"] for row in good] == [one]
    gone = ask(client, f"SELECT IsDeleted FROM Contact WHERE Id = '{one}'", deleted=True).json()["records"]
    assert [r["IsDeleted"] for r in gone] == [True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("LastName,Nothing\na,b\n", "Field name not found : Nothing"),
        ("LastName,Email\na\n", "another length"),
        ("", "empty"),
        ('LastName\n"open\n', "CSV"),
    ],
)
def test_a_wrong_upload_fails_the_whole_job(client: TestClient, text: str, words: str) -> None:
    info, good, bad, _ = ingest(client, "insert", text)
    assert info["state"] == "Failed"
    assert words in info["errorMessage"]
    assert good == bad == []


def token(client, form, **options):
    return client.post("/services/oauth2/token", data=form, headers={"Authorization": ""}, **options)


def test_tokens_by_client_credentials_refresh_and_code(client: TestClient) -> None:
    by_app = client.post(
        "/services/oauth2/token", data={"grant_type": "client_credentials"}, auth=(CLIENT_ID, TOKEN)
    ).json()
    opens = {"Authorization": f"Bearer {by_app['access_token']}"}
    assert client.get(f"{ROOT}/limits", headers=opens).status_code == 200
    control(client, action="expire")
    assert code(client.get(f"{ROOT}/limits", headers=opens)) == (401, "INVALID_SESSION_ID")
    own = {"client_id": CLIENT_ID, "client_secret": TOKEN}
    again = token(client, {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN, **own})
    assert again.json()["instance_url"] == "http://testserver"
    wrong = token(client, {"grant_type": "client_credentials", **own, "client_secret": "other"})
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_client")
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"verifier").digest()).decode().rstrip("=")
    asked = {"response_type": "code", "client_id": CLIENT_ID, "redirect_uri": "http://127.0.0.1:1/back"}
    asked |= {"state": "s", "code_challenge": challenge}
    sent = client.get("/services/oauth2/authorize", params=asked, follow_redirects=False)
    answer = parse_qs(urlsplit(sent.headers["location"]).query)
    form = {"grant_type": "authorization_code", "client_id": CLIENT_ID, "code": answer["code"][0]}
    form |= {"redirect_uri": asked["redirect_uri"]}
    assert answer["state"] == ["s"]
    assert token(client, form | {"code_verifier": "other"}).json()["error"] == "invalid_grant"
    sent = client.get("/services/oauth2/authorize", params=asked, follow_redirects=False)
    form["code"] = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
    given = token(client, form | {"code_verifier": "verifier"}).json()
    renewed = token(client, {"grant_type": "refresh_token", "refresh_token": given["refresh_token"], **own})
    assert renewed.json()["access_token"] != given["access_token"]
    ended = {"token": given["refresh_token"]}
    assert client.post("/services/oauth2/revoke", data=ended).status_code == 200
    assert client.post("/services/oauth2/revoke", data=ended).status_code == 400
    again = token(client, {"grant_type": "refresh_token", "refresh_token": given["refresh_token"], **own})
    assert again.json()["error"] == "invalid_grant"


def test_a_jwt_needs_the_registered_key_an_audience_a_user_and_time(client: TestClient) -> None:
    key, other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    control(client, action="register", client_id="app", public_key=pem.decode())

    def sign(signer=key, **changes):
        claims = {"iss": "app", "sub": USER, "aud": "https://login.salesforce.com"}
        claims |= {"exp": datetime.now(UTC) + timedelta(minutes=3)} | changes
        return token(client, {"grant_type": JWT_GRANT, "assertion": jwt.encode(claims, signer, "RS256")})

    assert sign().status_code == 200
    for reply in (
        sign(other),
        sign(aud="https://elsewhere.example"),
        sign(exp=datetime.now(UTC) - timedelta(minutes=3)),
        sign(sub="somebody@else.example"),
    ):
        assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")
    assert sign(iss="unknown").json()["error"] == "invalid_client_id"


def test_a_company_without_an_org_serves_none(client_for: Callable[..., TestClient], demo) -> None:
    from dataclasses import replace

    assert client_for(replace(demo, org=None)).get(f"{ROOT}/limits").status_code == 404


@pytest.mark.real_data
def test_the_sales_company_as_of_a_day() -> None:
    from omni.errors import ConfigError

    try:
        whole, then = load_company("sales"), load_company("sales", date(2017, 6, 30))
    except ConfigError as error:
        pytest.skip(f"real data absent: {error}")
    now, before = whole.org().rows["Opportunity"], then.org().rows["Opportunity"]
    assert 0 < len(before) < len(now) == 8_800
    assert max(row["CloseDate"] or "" for row in before.values()) == "2017-06-30"
    later = [i for i, row in now.items() if (row["CloseDate"] or "") > "2017-06-30" and i in before]
    assert later
    assert {before[i]["StageName"] for i in later} == {"Engaging"}
