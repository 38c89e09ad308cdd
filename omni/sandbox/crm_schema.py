"""The properties an account's CRM types can have, as the account would declare them.

Kept apart from the project's contracts on purpose: this is the other side of the wire, and a contract that
asks for what the vendor lacks must be seen to fail.
"""

from __future__ import annotations

from collections.abc import Collection

from omni.sandbox.company import Property

LIFECYCLE = (
    "subscriber",
    "lead",
    "marketingqualifiedlead",
    "salesqualifiedlead",
    "opportunity",
    "customer",
    "evangelist",
    "other",
)
STAGES = (
    "appointmentscheduled",
    "qualifiedtobuy",
    "presentationscheduled",
    "contractsent",
    "closedwon",
    "closedlost",
)
TICKET_STAGES = ("1", "2", "3", "4")
"""New, waiting on contact, waiting on us, closed."""
TICKET_CATEGORIES = ("PRODUCT_ISSUE", "BILLING_ISSUE", "FEATURE_REQUEST", "GENERAL_INQUIRY")
EVENTS = ("page_view", "product_view", "add_to_cart", "checkout", "purchase", "signup")


def _standard(modified: str) -> tuple[Property, ...]:
    return (
        Property("hs_object_id", "number", "Record ID"),
        Property("createdate", "datetime", "Create Date"),
        Property(modified, "datetime", "Last Modified Date"),
    )


_CONTACTS = (
    *_standard("lastmodifieddate"),
    Property("email", "string", "Email", unique=True),
    Property("firstname", "string", "First Name"),
    Property("lastname", "string", "Last Name"),
    Property("lifecyclestage", "enumeration", "Lifecycle Stage", LIFECYCLE),
    Property("lead_source", "string", "Lead Source", custom=True),
    Property("first_contact_date", "date", "First Contact Date", custom=True),
    Property("external_id", "string", "External ID", custom=True, unique=True),
    Property("phone", "string", "Phone Number"),
    Property("country", "string", "Country/Region"),
    Property("landing_page", "string", "Landing Page", custom=True),
    Property("job_level", "string", "Job Level", custom=True),
    Property("industry", "string", "Industry"),
    Property("employees", "number", "Number of Employees", custom=True),
    Property("visits_before_signup", "number", "Visits before Sign-up", custom=True),
    Property("newsletter", "bool", "Newsletter", ("true", "false"), custom=True),
    Property("omni_lead_score", "number", "Lead Score", custom=True),
    Property("hs_merged_object_ids", "string", "Merged Record IDs", calculated=True),
)
_COMPANIES = (
    *_standard("hs_lastmodifieddate"),
    Property("name", "string", "Company Name"),
    Property("city", "string", "City"),
    Property("country", "string", "Country/Region"),
    Property("external_id", "string", "External ID", custom=True, unique=True),
    Property("domain", "string", "Company Domain Name"),
    Property("industry", "string", "Industry"),
    Property("state", "string", "State/Region"),
    Property("hs_merged_object_ids", "string", "Merged Record IDs", calculated=True),
)
_DEALS = (
    *_standard("hs_lastmodifieddate"),
    Property("dealname", "string", "Deal Name"),
    Property("amount", "number", "Amount"),
    Property("dealstage", "enumeration", "Deal Stage", STAGES),
    Property("pipeline", "enumeration", "Pipeline", ("default",)),
    Property("closedate", "datetime", "Close Date"),
    Property("external_id", "string", "External ID", custom=True, unique=True),
    Property("segment", "string", "Segment", custom=True),
    Property("lead_type", "string", "Lead Type", custom=True),
    Property("external_company_id", "string", "External Company ID", custom=True),
    Property("hs_merged_object_ids", "string", "Merged Record IDs", calculated=True),
)
_REVIEWS = (
    *_standard("hs_lastmodifieddate"),
    Property("external_id", "string", "External ID", custom=True),
    Property("order_ref", "string", "Order", custom=True),
    Property("score", "number", "Score", custom=True),
    Property("title", "string", "Title", custom=True),
    Property("message", "string", "Message", custom=True),
)
_EMAIL_SENDS = (
    *_standard("hs_lastmodifieddate"),
    Property("campaign", "string", "Campaign", custom=True),
    Property("variant", "string", "Variant", custom=True),
    Property("contact_id", "string", "Contact ID", custom=True),
    Property("email", "string", "Email", custom=True),
    Property("sent_at", "datetime", "Sent", custom=True),
    Property("opened_at", "datetime", "Opened", custom=True),
    Property("clicked_at", "datetime", "Clicked", custom=True),
)
_WEB_EVENTS = (
    *_standard("hs_lastmodifieddate"),
    Property("visitor_id", "string", "Visitor ID", custom=True),
    Property("contact_id", "string", "Contact ID", custom=True),
    Property("event", "enumeration", "Event", EVENTS, custom=True),
    Property("page", "string", "Page", custom=True),
    Property("channel", "string", "Channel", custom=True),
    Property("occurred_at", "datetime", "Occurred", custom=True),
)

_TICKETS = (
    *_standard("hs_lastmodifieddate"),
    Property("subject", "string", "Ticket Name"),
    Property("content", "string", "Ticket Description"),
    Property("hs_pipeline", "enumeration", "Pipeline", ("0",)),
    Property("hs_pipeline_stage", "enumeration", "Ticket Status", TICKET_STAGES),
    Property("hs_ticket_priority", "enumeration", "Priority", ("LOW", "MEDIUM", "HIGH", "URGENT")),
    Property("hs_ticket_category", "enumeration", "Category", TICKET_CATEGORIES),
    Property("source_type", "enumeration", "Source", ("CHAT", "EMAIL", "FORM", "PHONE")),
    Property("hubspot_owner_id", "enumeration", "Ticket Owner"),
    Property("closed_date", "datetime", "Close Date"),
    Property("order_ref", "string", "Order", custom=True),
    Property("hs_merged_object_ids", "string", "Merged Record IDs", calculated=True),
)

PROPERTIES: dict[str, tuple[Property, ...]] = {
    "contacts": _CONTACTS,
    "companies": _COMPANIES,
    "deals": _DEALS,
    "tickets": _TICKETS,
    "reviews": _REVIEWS,
    "email_sends": _EMAIL_SENDS,
    "web_events": _WEB_EVENTS,
}

TYPE_IDS = {
    "contacts": "0-1",
    "companies": "0-2",
    "deals": "0-3",
    "tickets": "0-5",
    "reviews": "2-30000001",
    "email_sends": "2-30000002",
    "web_events": "2-30000003",
}
"""HubSpot's own numbers of its types, and this account's of the types it made itself."""
SINGULAR = {"contacts": "contact", "companies": "company", "deals": "deal", "tickets": "ticket"}


def is_custom(kind: str) -> bool:
    """Whether the account made the type itself."""
    return kind not in SINGULAR


def modified_property(kind: str) -> str:
    """The property that moves when an object changes: contacts have their own name for it."""
    return "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"


def declared(kind: str, without: Collection[str] = ()) -> tuple[Property, ...]:
    """A type's properties, less those this account never created."""
    return tuple(p for p in PROPERTIES[kind] if p.name not in without)
