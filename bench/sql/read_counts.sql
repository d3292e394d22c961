\set r 1
SELECT * FROM presence_counts('five-' || :r);
