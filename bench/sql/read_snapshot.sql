\set r random(1, 200)
SELECT presence_snapshot('five-' || :r);
