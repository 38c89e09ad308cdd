"""The objects of the sandbox companies' Salesforce orgs, as describe tells them.

Kept apart from the project's contracts on purpose: this is the other side of the wire, and a contract that
asks for what the vendor lacks must be seen to fail.
"""

from __future__ import annotations

from omni.sandbox.salesforce_org import ObjectType, OrgField, system_fields

OWNER = OrgField("OwnerId", "reference", target="User", relationship="Owner")
ACCOUNT = OrgField("AccountId", "reference", target="Account", relationship="Account")


def _address(name: str) -> tuple[OrgField, ...]:
    parts = ("City", "State", "Country")
    compound = OrgField(
        f"{name}Address", "address", parts={p.lower(): f"{name}{p}" for p in parts}, set_by="system"
    )
    return (*(OrgField(f"{name}{p}", length=80) for p in parts), compound)


def account(*custom: OrgField) -> ObjectType:
    """Companies."""
    return ObjectType(
        "Account",
        "001",
        (
            *system_fields(),
            OrgField("Name", required=True),
            OrgField("Industry", "picklist"),
            OrgField("AnnualRevenue", "currency"),
            OrgField("NumberOfEmployees", "int"),
            OrgField("YearStarted", length=4),
            OrgField("Website", "url"),
            *_address("Billing"),
            OrgField("ParentId", "reference", target="Account", relationship="Parent"),
            OWNER,
            *custom,
        ),
    )


def contact(*custom: OrgField) -> ObjectType:
    """People."""
    return ObjectType(
        "Contact",
        "003",
        (
            *system_fields(),
            ACCOUNT,
            OrgField("FirstName", length=40),
            OrgField("LastName", required=True, length=80),
            OrgField("Email", "email", length=80),
            OrgField("Phone", "phone", length=40),
            OrgField("Title", length=128),
            OrgField("LeadSource", "picklist"),
            OrgField("HasOptedOutOfEmail", "boolean"),
            *_address("Mailing"),
            OWNER,
            *custom,
        ),
    )


def opportunity(stages: tuple[str, ...], *custom: OrgField) -> ObjectType:
    """Deals; these orgs let open ones be without a closing date."""
    return ObjectType(
        "Opportunity",
        "006",
        (
            *system_fields(),
            ACCOUNT,
            OrgField("Name", required=True, length=120),
            OrgField("StageName", "picklist", values=stages, required=True),
            OrgField("Amount", "currency"),
            OrgField("CloseDate", "date"),
            OrgField("Type", "picklist"),
            OrgField("LeadSource", "picklist"),
            OrgField("IsClosed", "boolean", set_by="system"),
            OrgField("IsWon", "boolean", set_by="system"),
            OWNER,
            *custom,
        ),
    )


def user(*custom: OrgField) -> ObjectType:
    """Those who work in the org."""
    return ObjectType(
        "User",
        "005",
        (
            *system_fields(deletable=False),
            OrgField("Username", required=True, length=80),
            OrgField("FirstName", length=40),
            OrgField("LastName", required=True, length=80),
            OrgField("Name", length=121, set_by="system"),
            OrgField("Email", "email", length=128),
            OrgField("Title", length=80),
            OrgField("IsActive", "boolean"),
            OrgField("ManagerId", "reference", target="User", relationship="Manager"),
            *custom,
        ),
    )


def product(*custom: OrgField) -> ObjectType:
    """What is sold."""
    return ObjectType(
        "Product2",
        "01t",
        (
            *system_fields(),
            OrgField("Name", required=True),
            OrgField("ProductCode"),
            OrgField("Family", "picklist"),
            OrgField("Description", "textarea", length=4000),
            OrgField("IsActive", "boolean"),
            *custom,
        ),
    )
