"""The demo company's sales side, as a Salesforce org of its own would hold it.

Derived from its CRM and shop, so that both vendors tell of the same people and deals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omni.sandbox.company import CrmObjects, CrmRecord, Shop, crm_time
from omni.sandbox.salesforce_org import Org, OrgField
from omni.sandbox.salesforce_schema import account, contact, opportunity, product, user

AGENTS = (("Mara", "Lindt"), ("Jonas", "Feld"), ("Ida", "Brandt"), ("Paul", "Sommer"), ("Nele", "Kranz"))
STAGES = {
    "appointmentscheduled": "Prospecting",
    "qualifiedtobuy": "Qualification",
    "presentationscheduled": "Proposal/Price Quote",
    "contractsent": "Negotiation/Review",
    "closedwon": "Closed Won",
    "closedlost": "Closed Lost",
}
EXTERNAL = OrgField("External_Id__c", external_id=True, length=40)
Links = Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]]
Ids = dict[str, str]


def build_org(crm: Mapping[str, CrmObjects], links: Links, shop: Shop) -> Org:
    """A new org with the company's accounts, contacts, opportunities, users and products."""
    org = Org(
        (
            account(EXTERNAL),
            contact(
                EXTERNAL,
                OrgField("Newsletter__c", "boolean", compliance="PII;GDPR", security="Confidential"),
                OrgField("Lead_Score__c", "double"),
            ),
            opportunity(
                tuple(STAGES.values()),
                EXTERNAL,
                OrgField("Segment__c", "picklist", values=("small", "medium", "large")),
                OrgField("Product__c", "reference", target="Product2", relationship="Product__r"),
            ),
            user(OrgField("Regional_Office__c", "picklist")),
            product(EXTERNAL, OrgField("List_Price__c", "currency")),
        )
    )
    begin = crm_time(crm["companies"].records[0].created_ms if crm["companies"].records else 0)
    users = [_agent(org, number, begin) for number in range(len(AGENTS))]
    accounts = _accounts(org, crm["companies"], users)
    _contacts(org, crm["contacts"], _accounts_of(links, accounts), users)
    _opportunities(org, crm["deals"], links.get(("deals", "companies"), {}), accounts, users)
    for number, node in enumerate(shop.products, 1):
        values = {
            "Name": node["title"],
            "ProductCode": node["handle"],
            "Family": node["productType"],
            "IsActive": node["status"] == "ACTIVE",
            "External_Id__c": f"P-{number:04d}",
            "List_Price__c": float(node["priceRangeV2"]["minVariantPrice"]["amount"]),
        }
        created, changed = (f"{node[key][:-1]}.000Z" for key in ("createdAt", "updatedAt"))
        org.put("Product2", number, created, changed, values)
    return org


def _agent(org: Org, number: int, begin: str) -> str:
    first, last = AGENTS[number]
    mail = f"{first}.{last}@demo.example".lower()
    values = {
        "Username": mail,
        "Email": mail,
        "FirstName": first,
        "LastName": last,
        "Name": f"{first} {last}",
        "Title": "Head of Sales" if number == 0 else "Account Executive",
        "IsActive": True,
        "ManagerId": next(iter(org.rows["User"]), None),
        "Regional_Office__c": "North" if number % 2 else "South",
    }
    return org.put("User", number + 1, begin, begin, values)


def _put(org: Org, kind: str, number: int, record: CrmRecord, values: dict[str, Any]) -> str:
    changed = crm_time(max(record.updated_ms, record.archived_ms or 0))
    values["IsDeleted"] = record.archived_ms is not None
    return org.put(kind, number, crm_time(record.created_ms), changed, values)


def _accounts(org: Org, companies: CrmObjects, users: list[str]) -> Ids:
    found = {}
    for number, record in enumerate(companies.records, 1):
        own = record.properties
        values = {
            "Name": own["name"],
            "Industry": own["industry"],
            "Website": own["domain"] and f"https://{own['domain']}",
            "BillingCity": own["city"],
            "BillingState": own["state"],
            "BillingCountry": own["country"],
            "OwnerId": users[number % len(users)],
            "External_Id__c": own["external_id"],
        }
        found[record.id] = _put(org, "Account", number, record, values)
    return found


def _accounts_of(links: Links, accounts: Ids) -> Ids:
    """The account of each contact that has a deal with a company."""
    companies = links.get(("deals", "companies"), {})
    return {
        contact_id: accounts[companies[deal][0]]
        for contact_id, deals in links.get(("contacts", "deals"), {}).items()
        for deal in deals
        if deal in companies and companies[deal][0] in accounts
    }


def _contacts(org: Org, contacts: CrmObjects, accounts: Ids, users: list[str]) -> None:
    for number, record in enumerate(contacts.records, 1):
        own = record.properties
        values = {
            "AccountId": accounts.get(record.id),
            "FirstName": own["firstname"],
            "LastName": own["lastname"] or "[not provided]",
            "Email": own["email"],
            "Phone": own["phone"],
            "Title": own["job_level"],
            "LeadSource": own["lead_source"],
            "HasOptedOutOfEmail": own["newsletter"] == "false",
            "MailingCountry": own["country"],
            "OwnerId": users[number % len(users)],
            "External_Id__c": own["external_id"],
            "Newsletter__c": own["newsletter"] == "true",
        }
        _put(org, "Contact", number, record, values)


def _opportunities(
    org: Org, deals: CrmObjects, companies: Mapping[str, tuple[str, ...]], accounts: Ids, users: list[str]
) -> None:
    for number, record in enumerate(deals.records, 1):
        own = record.properties
        stage = STAGES[own["dealstage"] or ""]
        company = companies.get(record.id, ("",))[0]
        amount, closed = own["amount"], own["closedate"]
        values = {
            "AccountId": accounts.get(company),
            "Name": own["dealname"] or "[not provided]",
            "StageName": stage,
            "Amount": None if amount is None else float(amount),
            "CloseDate": closed and closed[:10],
            "LeadSource": own["lead_type"],
            "IsClosed": stage.startswith("Closed"),
            "IsWon": stage == "Closed Won",
            "OwnerId": users[number % len(users)],
            "External_Id__c": own["external_id"],
            "Segment__c": own["segment"],
        }
        _put(org, "Opportunity", number, record, values)
