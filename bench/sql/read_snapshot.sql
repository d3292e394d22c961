\set r 1
SELECT presence_snapshot('five-' || :r);
