\set r random(1, 200)
SELECT * FROM presence_counts('five-' || :r);
