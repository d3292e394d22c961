\set r 1
SELECT * FROM presence_list('five-' || :r);
