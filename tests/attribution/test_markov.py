"""Attribution by removal effect: worked by hand, against a simulation, and on real journeys."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from omni.attribution.markov import Journey, attribute
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.models import cached_models

REAL = settings().real_data
OLIST, JOURNEY = REAL / "olist", REAL / "complete_journey"


def test_three_journeys_worked_by_hand() -> None:
    """C1 C2 C3 converts, C1 and C2 C3 do not.

    From the start 2/3 go to C1 and 1/3 to C2; from C1 half go on to C2; C2 always leads to C3; from C3 half
    convert: (2/3 * 1/2 + 1/3) * 1/2 = 1/3. Without C1 it is 1/3 * 1/2 = 1/6, without C2 or C3 nothing.
    """
    given_credit = attribute(
        [Journey(("C1", "C2", "C3"), 1, 0), Journey(("C1",), 0, 1), Journey(("C2", "C3"), 0, 1)]
    )
    assert {name: round(c.removal_effect, 9) for name, c in given_credit.items()} == {
        "C1": 0.5,
        "C2": 1,
        "C3": 1,
    }
    assert {name: round(c.share, 9) for name, c in given_credit.items()} == {"C1": 0.2, "C2": 0.4, "C3": 0.4}


def test_loops_end() -> None:
    """From a 1/2 stay, 1/4 convert, 1/4 are lost: half convert, all of it through a."""
    given_credit = attribute([Journey(("a", "a"), 1, 1)])
    assert given_credit["a"].removal_effect == 1
    assert given_credit["a"].conversions == 1


def test_a_second_order_chain_remembers_where_it_came_from() -> None:
    """Only a after b converts: to the plain chain every a is alike, the longer memory gives b all it did."""
    journeys = [Journey(("b", "a"), 10, 0), Journey(("a",), 0, 10), Journey(("a", "b"), 0, 10)]
    plain, memory = attribute(journeys), attribute(journeys, order=2)
    assert memory["b"].removal_effect == pytest.approx(1)
    assert plain["b"].removal_effect < 1


def test_without_conversions_there_is_nothing_to_hand_out() -> None:
    assert attribute([Journey(("a",), 0, 3)]) == {}
    assert attribute([]) == {}


@pytest.mark.parametrize("wrong", [Journey((), 1, 0), Journey(("a",), -1, 0), Journey(("a",), 1, -1)])
def test_impossible_journeys_are_refused(wrong: Journey) -> None:
    with pytest.raises(ValueError, match="a journey has a path"):
        attribute([wrong])
    with pytest.raises(ValueError, match="at least one"):
        attribute([], order=0)


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple)
many = st.lists(st.builds(Journey, paths, st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6)


@given(journeys=many)
def test_shares_add_up_whatever_the_journeys(journeys: list[Journey]) -> None:
    given_credit = attribute(journeys)
    total = sum(j.conversions for j in journeys)
    if total == 0:
        assert given_credit == {}
        return
    assert sum(c.share for c in given_credit.values()) == pytest.approx(1)
    assert sum(c.conversions for c in given_credit.values()) == pytest.approx(total)
    assert all(0 <= c.removal_effect <= 1 + 1e-9 for c in given_credit.values())


@pytest.mark.slow
@hypothesis(max_examples=5, deadline=None)
@given(journeys=many.filter(lambda js: sum(j.conversions for j in js) >= 3))
def test_removal_effects_are_what_random_walks_find(journeys: list[Journey]) -> None:
    steps: dict[str, Counter[str]] = {}
    for j in journeys:
        for end, times in (("+", j.conversions), ("-", j.lost)):
            for before, after in itertools.pairwise(("^", *j.path, end)):
                steps.setdefault(before, Counter())[after] += times
    generator = np.random.default_rng(7)

    def walk(without: str | None, walks: int = 6_000) -> float:
        at = np.full(walks, "^", dtype=object)
        while len(moving := np.flatnonzero((at != "+") & (at != "-"))):
            for state in set(at[moving]):
                here = moving[at[moving] == state]
                names, weights = zip(*((s, n) for s, n in steps[state].items() if n), strict=True)
                chosen = generator.choice(names, size=len(here), p=np.array(weights) / sum(weights))
                at[here] = np.where(chosen == without, "-", chosen)
        return float((at == "+").mean())

    whole = walk(None)
    for channel, credit in attribute(journeys).items():
        assert credit.removal_effect == pytest.approx(1 - walk(channel) / whole, abs=0.12)


def attributed(touches: pd.DataFrame, conversions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The project's models on given touches and conversions."""
    models = cached_models(settings().data / "models")
    tenant = Tenant(tenant="real", title="Real", timezone="UTC", currency="USD", sources={})
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for schema in ("core", "marts"):
            con.execute(f"CREATE SCHEMA {schema}")
        con.register("given_touches", touches)
        con.register("given_conversions", conversions)
        con.execute(
            "CREATE TABLE core.attribution_touches AS SELECT touch_id, person_id, channel, "
            "CAST(touched_at AS TIMESTAMPTZ) AS touched_at FROM given_touches"
        )
        con.execute(
            "CREATE TABLE core.attribution_conversions AS SELECT * REPLACE ("
            "CAST(converted_at AS TIMESTAMPTZ) AS converted_at, "
            "CAST(conversion_date AS DATE) AS conversion_date, "
            "CAST(amount AS DECIMAL(18, 2)) AS amount) FROM given_conversions"
        )
        for name in ("touchpoints", "channels", "journeys"):
            query = models[f"marts.attribution_{name}"].bound(tenant)
            con.execute(f"CREATE TABLE marts.attribution_{name} AS {query}")
        return {
            name: con.execute(f"SELECT * FROM marts.attribution_{name}").df()
            for name in ("touchpoints", "channels", "journeys")
        }


def check_sums(found: dict[str, pd.DataFrame], conversions: pd.DataFrame) -> None:
    """Every rule hands out every conversion and every cent, and the paths hold all that had a touch."""
    for _, rows in found["channels"].groupby("rule"):
        assert rows["conversions"].sum() == pytest.approx(len(conversions))
        assert round(float(rows["amount"].astype(float).sum()), 2) == round(conversions["amount"].sum(), 2)
    touched = found["touchpoints"].query("position == 1 and channel != '(none)'")
    assert found["journeys"]["conversions"].sum() == len(touched)


def markov(journeys: pd.DataFrame, kind: str) -> dict[str, Any]:
    rows = journeys[journeys["kind"] == kind].itertuples()
    return attribute([Journey(tuple(r.path.split(" > ")), int(r.conversions), int(r.lost)) for r in rows])


@pytest.mark.real_data
@pytest.mark.skipif(not OLIST.exists(), reason=f"no Olist data in {OLIST}")
def test_olist_leads_by_origin_equal_pandas() -> None:
    leads = pd.read_parquet(OLIST / "marketing_qualified_leads.parquet")
    deals = pd.read_parquet(OLIST / "closed_deals.parquet")
    leads = leads.assign(origin=leads["origin"].fillna("unknown").replace("", "unknown"))
    joined = deals.merge(leads, on="mql_id")
    joined = joined.assign(
        won=pd.to_datetime(joined["won_date"]), at=pd.to_datetime(joined["first_contact_date"])
    )
    touches = pd.DataFrame(
        {
            "touch_id": "lead:" + leads["mql_id"],
            "person_id": leads["mql_id"],
            "channel": leads["origin"],
            "touched_at": pd.to_datetime(leads["first_contact_date"]),
        }
    )
    conversions = pd.DataFrame(
        {
            "conversion_id": "deal:" + joined["mql_id"],
            "kind": "deal",
            "person_id": joined["mql_id"],
            "converted_at": joined["won"],
            "conversion_date": joined["won"].dt.normalize(),
            "amount": 1.0,
            "window_hours": 4320,
        }
    )
    found = attributed(touches, conversions)
    check_sums(found, conversions)
    near = joined[(joined["at"] <= joined["won"]) & (joined["at"] > joined["won"] - pd.Timedelta(hours=4320))]
    expected = near["origin"].value_counts().to_dict() | {"(none)": len(joined) - len(near)}
    for rule in ("first", "last", "linear", "position"):
        rows = found["channels"].query(f"rule == '{rule}' and conversions > 0")
        assert rows.groupby("channel")["conversions"].sum().round(6).to_dict() == {
            channel: float(n) for channel, n in expected.items() if n
        }
    given_credit = markov(found["journeys"], "deal")
    # With one touch a journey, removing a channel loses just its own conversions.
    assert {c: round(credit.conversions, 6) for c, credit in given_credit.items() if credit.conversions} == {
        channel: float(n) for channel, n in near["origin"].value_counts().items()
    }


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not JOURNEY.exists(), reason=f"no Complete Journey data in {JOURNEY}")
def test_complete_journey_baskets_by_campaign_equal_pandas() -> None:
    baskets = pd.read_parquet(JOURNEY / "transactions_sample.parquet")
    mailed = pd.read_parquet(JOURNEY / "campaigns.parquet").merge(
        pd.read_parquet(JOURNEY / "campaign_descriptions.parquet"), on="campaign_id"
    )
    redeemed = pd.read_parquet(JOURNEY / "coupon_redemptions.parquet")
    orders = (
        baskets.groupby(["basket_id", "household_id"], as_index=False)
        .agg(at=("transaction_timestamp", "min"), amount=("sales_value", "sum"))
        .assign(amount=lambda d: d["amount"].round(2))
    )
    touches = pd.concat(
        [
            pd.DataFrame(
                {
                    "touch_id": "mail:"
                    + mailed["campaign_id"].astype(str)
                    + ":"
                    + mailed["household_id"].astype(str),
                    "person_id": mailed["household_id"].astype(str),
                    "channel": mailed["campaign_type"].astype(str),
                    "touched_at": pd.to_datetime(mailed["start_date"]),
                }
            ),
            pd.DataFrame(
                {
                    "touch_id": [f"coupon:{n}" for n in range(len(redeemed))],
                    "person_id": redeemed["household_id"].astype(str),
                    "channel": "coupon",
                    "touched_at": pd.to_datetime(redeemed["redemption_date"]),
                }
            ),
        ]
    )
    at = pd.to_datetime(orders["at"]).dt.tz_localize(None)
    conversions = pd.DataFrame(
        {
            "conversion_id": "order:" + orders["basket_id"].astype(str),
            "kind": "order",
            "person_id": orders["household_id"].astype(str),
            "converted_at": at,
            "conversion_date": at.dt.normalize(),
            "amount": orders["amount"],
            "window_hours": 720,
        }
    )
    found = attributed(touches, conversions)
    check_sums(found, conversions)
    pairs = conversions.merge(
        touches.assign(touched_at=touches["touched_at"].dt.tz_localize(None)), on="person_id"
    )
    age = pairs["converted_at"] - pairs["touched_at"]
    pairs = pairs[(age >= pd.Timedelta(0)) & (age < pd.Timedelta(hours=720))]
    pairs = pairs.sort_values(["touched_at", "touch_id"])
    for rule, pick in (("first", "first"), ("last", "last")):
        chosen = (
            pairs.groupby("conversion_id").agg(channel=("channel", pick))["channel"].value_counts().to_dict()
        )
        chosen["(none)"] = len(conversions) - pairs["conversion_id"].nunique()
        rows = found["channels"].query(f"rule == '{rule}' and conversions > 0")
        assert rows.groupby("channel")["conversions"].sum().to_dict() == {
            c: float(n) for c, n in chosen.items()
        }
    share = pairs.assign(n=pairs.groupby("conversion_id")["touch_id"].transform("count"))
    linear = (1 / share["n"]).groupby(share["channel"]).sum()
    rows = (
        found["channels"]
        .query("rule == 'linear' and channel != '(none)'")
        .groupby("channel")["conversions"]
        .sum()
    )
    pd.testing.assert_series_equal(rows, linear.rename("conversions"), check_index_type=False)
    given_credit = markov(found["journeys"], "order")
    assert sum(c.conversions for c in given_credit.values()) == pytest.approx(
        pairs["conversion_id"].nunique()
    )
