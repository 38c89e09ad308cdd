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
EVENTS = ("page_view", "product_view", "add_to_cart", "checkout", "purchase", "signup")


def _standard(modified: str) -> tuple[Property, ...]:
    return (
        Property("hs_object_id", "number", "Record ID"),
        Property("createdate", "datetime", "Create Date"),
        Property(modified, "datetime", "Last Modified Date"),
    )


_CONTACTS = (
    *_standard("lastmodifieddate"),
    Property("email", "string", "Email"),
    Property("firstname", "string", "First Name"),
    Property("lastname", "string", "Last Name"),
    Property("lifecyclestage", "enumeration", "Lifecycle Stage", LIFECYCLE),
    Property("lead_source", "string", "Lead Source"),
    Property("first_contact_date", "date", "First Contact Date"),
    Property("external_id", "string", "External ID"),
    Property("phone", "string", "Phone Number"),
    Property("country", "string", "Country/Region"),
    Property("landing_page", "string", "Landing Page"),
    Property("job_level", "string", "Job Level"),
    Property("industry", "string", "Industry"),
    Property("employees", "number", "Number of Employees"),
    Property("visits_before_signup", "number", "Visits before Sign-up"),
    Property("newsletter", "bool", "Newsletter", ("true", "false")),
)
_COMPANIES = (
    *_standard("hs_lastmodifieddate"),
    Property("name", "string", "Company Name"),
    Property("city", "string", "City"),
    Property("country", "string", "Country/Region"),
    Property("external_id", "string", "External ID"),
    Property("domain", "string", "Company Domain Name"),
    Property("industry", "string", "Industry"),
    Property("state", "string", "State/Region"),
)
_DEALS = (
    *_standard("hs_lastmodifieddate"),
    Property("dealname", "string", "Deal Name"),
    Property("amount", "number", "Amount"),
    Property("dealstage", "enumeration", "Deal Stage", STAGES),
    Property("pipeline", "enumeration", "Pipeline", ("default",)),
    Property("closedate", "datetime", "Close Date"),
    Property("external_id", "string", "External ID"),
    Property("segment", "string", "Segment"),
    Property("lead_type", "string", "Lead Type"),
    Property("external_company_id", "string", "External Company ID"),
)
_REVIEWS = (
    *_standard("hs_lastmodifieddate"),
    Property("external_id", "string", "External ID"),
    Property("order_ref", "string", "Order"),
    Property("score", "number", "Score"),
    Property("title", "string", "Title"),
    Property("message", "string", "Message"),
)
_EMAIL_SENDS = (
    *_standard("hs_lastmodifieddate"),
    Property("campaign", "string", "Campaign"),
    Property("variant", "string", "Variant"),
    Property("contact_id", "string", "Contact ID"),
    Property("email", "string", "Email"),
    Property("sent_at", "datetime", "Sent"),
    Property("opened_at", "datetime", "Opened"),
    Property("clicked_at", "datetime", "Clicked"),
)
_WEB_EVENTS = (
    *_standard("hs_lastmodifieddate"),
    Property("visitor_id", "string", "Visitor ID"),
    Property("contact_id", "string", "Contact ID"),
    Property("event", "enumeration", "Event", EVENTS),
    Property("page", "string", "Page"),
    Property("channel", "string", "Channel"),
    Property("occurred_at", "datetime", "Occurred"),
)

PROPERTIES: dict[str, tuple[Property, ...]] = {
    "contacts": _CONTACTS,
    "companies": _COMPANIES,
    "deals": _DEALS,
    "reviews": _REVIEWS,
    "email_sends": _EMAIL_SENDS,
    "web_events": _WEB_EVENTS,
}


def modified_property(kind: str) -> str:
    """The property that moves when an object changes: contacts have their own name for it."""
    return "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"


def declared(kind: str, without: Collection[str] = ()) -> tuple[Property, ...]:
    """A type's properties, less those this account never created."""
    return tuple(p for p in PROPERTIES[kind] if p.name not in without)
