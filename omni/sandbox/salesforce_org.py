"""A Salesforce org's objects and records, and what may be done to them while it runs.

Values are kept as Python's: times as `2026-10-31T12:00:00.000Z`, dates as `2026-10-31`, so that both compare
as text. Every change moves SystemModstamp and LastModifiedDate, as the vendor's own triggers do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

Row = dict[str, Any]

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CHECKSUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
ID = re.compile(r"[0-9A-Za-z]{15}([0-9A-Za-z]{3})?")
EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;]+\.[^@\s,;.]+")

SOAP_TYPES = {
    "id": "tns:ID",
    "reference": "tns:ID",
    "boolean": "xsd:boolean",
    "int": "xsd:int",
    "double": "xsd:double",
    "currency": "xsd:double",
    "percent": "xsd:double",
    "date": "xsd:date",
    "datetime": "xsd:dateTime",
    "address": "urn:address",
}
NUMBERS = ("int", "double", "currency", "percent")


@dataclass(frozen=True)
class OrgField:
    """One field of an object as describe tells it.

    Attributes:
        type: Salesforce's name: id, reference, string, picklist, boolean, int, currency, date, datetime, …
        target: the object a reference leads to, and `relationship` the name SOQL goes there by.
        parts: the fields a compound one (type address) is made of.
        set_by: "system" for fields that no write may name.
        compliance: what rules its data fall under, such as "PII;GDPR"; `security` how confidential they are.
    """

    name: str
    type: str = "string"
    target: str | None = None
    relationship: str | None = None
    values: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    required: bool = False
    external_id: bool = False
    calculated: bool = False
    length: int = 255
    set_by: str = "user"
    compliance: str | None = None
    security: str | None = None

    @property
    def custom(self) -> bool:
        """Whether the account made it."""
        return self.name.endswith("__c")


def system_fields(*, deletable: bool = True) -> tuple[OrgField, ...]:
    """The fields every object has; users cannot be deleted, so they lack IsDeleted."""
    found = [
        OrgField("Id", "id", set_by="system"),
        OrgField("CreatedDate", "datetime", set_by="system"),
        OrgField("LastModifiedDate", "datetime", set_by="system"),
        OrgField("SystemModstamp", "datetime", set_by="system"),
    ]
    if deletable:
        found.insert(1, OrgField("IsDeleted", "boolean", set_by="system"))
    return tuple(found)


@dataclass(frozen=True)
class ObjectType:
    """One object's declaration; `bulk` is whether the Bulk API serves it."""

    name: str
    prefix: str
    fields: tuple[OrgField, ...]
    bulk: bool = True

    def named(self, name: str) -> OrgField | None:
        """A field by its name, in any case, as Salesforce finds it."""
        return self._by_name.get(name.lower())

    def relation(self, name: str) -> OrgField | None:
        """The reference field behind a relationship's name."""
        return self._by_relation.get(name.lower())

    @cached_property
    def _by_name(self) -> dict[str, OrgField]:
        return {f.name.lower(): f for f in self.fields}

    @cached_property
    def _by_relation(self) -> dict[str, OrgField]:
        return {f.relationship.lower(): f for f in self.fields if f.relationship}


FIELD_DEFINITION = ObjectType(
    "FieldDefinition",
    "4fx",
    tuple(
        OrgField(name, set_by="system")
        for name in (
            "Id",
            "EntityDefinitionId",
            "QualifiedApiName",
            "ComplianceGroup",
            "SecurityClassification",
        )
    ),
    bulk=False,
)
"""The object in which Salesforce tells of fields what describe leaves out."""


class Invalid(Exception):
    """A row that validation refuses: Salesforce's code, its words and the fields."""

    def __init__(self, code: str, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = fields


def record_id(prefix: str, number: int) -> str:
    """The 18-character id of an object's n-th record."""
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return long_id(f"{prefix}5g{digits.rjust(10, '0')}")


def long_id(short: str) -> str:
    """An id with the three letters that make it safe where case is lost."""
    if len(short) != 15:
        return short
    letters = ""
    for start in (0, 5, 10):
        bits = sum(1 << n for n, c in enumerate(short[start : start + 5]) if c.isascii() and c.isupper())
        letters += CHECKSUM[bits]
    return short + letters


def org_time(moment: datetime) -> str:
    """A moment as records hold it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Org:
    """An org.

    Args:
        types: its objects.
        clock: what time it is when a record is changed.
    """

    def __init__(
        self, types: tuple[ObjectType, ...], clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.types = {kind.name: kind for kind in types}
        self.rows: dict[str, dict[str, Row]] = {kind.name: {} for kind in types}
        self._lower = {kind.name.lower(): kind for kind in (*types, FIELD_DEFINITION)}
        self.rows[FIELD_DEFINITION.name] = {
            f"{kind.name}.{found.name}": {
                "Id": f"{kind.name}.{found.name}",
                "EntityDefinitionId": kind.name,
                "QualifiedApiName": found.name,
                "ComplianceGroup": found.compliance,
                "SecurityClassification": found.security,
            }
            for kind in types
            for found in kind.fields
        }
        self._clock = clock
        self._numbers = dict.fromkeys(self.types, 0)

    def type_named(self, name: str) -> ObjectType | None:
        """An object's declaration, by its name in any case."""
        return self._lower.get(name.lower())

    def put(self, name: str, number: int, created: str, changed: str, values: Row) -> str:
        """Add a record as it was found elsewhere, without validation. Returns its id."""
        kind = self.types[name]
        identity = record_id(kind.prefix, number)
        row: Row = {f.name: False if f.type == "boolean" else None for f in kind.fields if not f.parts}
        row |= {
            "Id": identity,
            "CreatedDate": created,
            "LastModifiedDate": changed,
            "SystemModstamp": changed,
        }
        # Salesforce keeps no empty text.
        row.update((field_name, None if value == "" else value) for field_name, value in values.items())
        self.rows[name][identity] = row
        self._numbers[name] = max(self._numbers[name], number)
        return identity

    def insert(self, name: str, values: Row, at: datetime | None = None) -> str:
        """Create a record. Returns its id.

        Raises:
            Invalid: validation refuses it.
        """
        clean = self._valid(self.types[name], values, new=True)
        now = org_time(at or self._clock())
        return self.put(name, self._numbers[name] + 1, now, now, clean)

    def change(self, name: str, identity: str, values: Row, at: datetime | None = None) -> None:
        """Set some fields of a record.

        Raises:
            Invalid: there is no such record, or validation refuses the values.
        """
        row = self._living(name, identity)
        row.update(self._valid(self.types[name], values, new=False))
        self._touch(row, at)

    def delete(self, name: str, identity: str, at: datetime | None = None) -> None:
        """Put a record into the recycle bin.

        Raises:
            Invalid: there is no such record, or its kind cannot be deleted.
        """
        row = self._living(name, identity)
        if "IsDeleted" not in row:
            raise Invalid("INSUFFICIENT_ACCESS_OR_READONLY", f"{name} records cannot be deleted")
        row["IsDeleted"] = True
        self._touch(row, at)

    def undelete(self, name: str, identity: str, at: datetime | None = None) -> None:
        """Take a record out of the recycle bin.

        Raises:
            Invalid: it is not there.
        """
        row = self.rows[name].get(long_id(identity))
        if row is None or not row.get("IsDeleted"):
            raise Invalid("UNDELETE_FAILED", "Entity is not in the recycle bin")
        row["IsDeleted"] = False
        self._touch(row, at)

    def purge(self, name: str, identity: str) -> None:
        """Empty the recycle bin of a record: it is gone without trace."""
        self.rows[name].pop(long_id(identity), None)

    def by_external(self, name: str, field_name: str, value: Any) -> list[str]:
        """Ids of living records that hold a value in an external id field."""
        return [
            identity
            for identity, row in self.rows[name].items()
            if row.get(field_name) == value and not row.get("IsDeleted")
        ]

    def _living(self, name: str, identity: str) -> Row:
        row = self.rows[name].get(long_id(identity))
        if row is None:
            raise Invalid("NOT_FOUND", "The requested resource does not exist")
        if row.get("IsDeleted"):
            raise Invalid("ENTITY_IS_DELETED", "entity is deleted")
        return row

    def _touch(self, row: Row, at: datetime | None) -> None:
        now = org_time(at or self._clock())
        row["LastModifiedDate"] = row["SystemModstamp"] = now

    def _valid(self, kind: ObjectType, values: Row, *, new: bool) -> Row:
        clean: Row = {}
        for name, value in values.items():
            found = kind.named(name)
            if found is None:
                raise Invalid("INVALID_FIELD", f"No such column '{name}' on sobject of type {kind.name}")
            if found.set_by == "system" or found.calculated or found.type == "address":
                code = "INVALID_FIELD_FOR_INSERT_UPDATE"
                raise Invalid(
                    code, f"Unable to create/update fields: {found.name}. Please check the security settings "
                    "of this field and verify that it is read/write for your profile or permission set.",
                    (found.name,),
                )  # fmt: skip
            clean[found.name] = None if value in (None, "") else self._value(found, value)
        required = [f.name for f in kind.fields if f.required]
        missing = [
            n for n in required if (n not in clean if new else False) or (n in clean and clean[n] is None)
        ]
        if missing:
            text = f"Required fields are missing: [{', '.join(missing)}]"
            raise Invalid("REQUIRED_FIELD_MISSING", text, tuple(missing))
        return clean

    def _value(self, found: OrgField, value: Any) -> Any:
        """The value as records hold it.

        Raises:
            Invalid: it is none of the field's type.
        """
        text = str(value)
        try:
            if found.type == "boolean":
                return {"true": True, "false": False}[text.lower()]
            if found.type in NUMBERS:
                return int(text) if found.type == "int" else float(text)
            if found.type == "date":
                return datetime.fromisoformat(text).date().isoformat()
            if found.type == "datetime":
                moment = datetime.fromisoformat(text)
                return org_time(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        except (ValueError, KeyError, OverflowError):
            raise Invalid(
                "INVALID_TYPE_ON_FIELD_IN_RECORD",
                f"{found.name}: value not of required type: {text[:80]}",
                (found.name,),
            ) from None
        if found.type == "email" and not EMAIL.fullmatch(text):
            raise Invalid(
                "INVALID_EMAIL_ADDRESS", f"{found.name}: invalid email address: {text[:80]}", (found.name,)
            )
        if found.type == "reference":
            target = self.rows.get(found.target or "", {})
            if not ID.fullmatch(text) or long_id(text) not in target:
                raise Invalid(
                    "MALFORMED_ID", f"{found.name}: id value of incorrect type: {text[:20]}", (found.name,)
                )
            return long_id(text)
        if len(text) > found.length:
            raise Invalid(
                "STRING_TOO_LONG",
                f"{found.name}: data value too large (max length={found.length})",
                (found.name,),
            )
        return text

    def value_at(self, kind: ObjectType, row: Row, path: str) -> Any:
        """The value at a checked path such as `Account.Name`; None where a reference is empty."""
        *steps, last = path.split(".")
        for step in steps:
            link = kind.relation(step)
            assert link is not None
            assert link.target is not None
            kind = self.types[link.target]
            found = self.rows[kind.name].get(row[link.name] or "")
            if found is None:
                return None
            row = found
        found_field = kind.named(last)
        assert found_field is not None
        if found_field.parts:
            parts = {part: row[source] for part, source in found_field.parts.items()}
            return parts if any(value is not None for value in parts.values()) else None
        return row[found_field.name]

    def living(self, kind: ObjectType, *, deleted: bool) -> Iterator[Row]:
        """An object's records in order of id, those in the recycle bin on request."""
        for row in sorted(self.rows[kind.name].values(), key=lambda r: r["Id"]):
            if deleted or not row.get("IsDeleted"):
                yield row
