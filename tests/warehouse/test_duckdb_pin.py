"""The case in which DuckDB 2.0.0 loses rows; when this passes on a newer version the pin may go."""

from __future__ import annotations

import duckdb


def test_rows_of_a_table_created_empty_in_the_same_transaction_survive(tmp_path):
    with duckdb.connect(tmp_path / "w.duckdb") as con:
        con.begin()
        con.execute("CREATE TABLE t AS SELECT i AS id, i::VARCHAR AS v FROM range(1) r(i) LIMIT 0")
        con.execute("INSERT INTO t SELECT i, i::VARCHAR FROM range(200000) r(i)")
        con.commit()
        assert con.execute("SELECT count(*), count(DISTINCT id) FROM (SELECT * FROM t)").fetchone() == (
            200000,
            200000,
        )
        con.execute(
            "MERGE INTO t USING (SELECT i AS id, 'new' AS v FROM range(200000) r(i)) s ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE BY NAME WHEN NOT MATCHED THEN INSERT BY NAME"
        )
        assert con.execute("SELECT count(*) FROM t").fetchone() == (200000,)
