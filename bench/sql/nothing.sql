-- The bar for a touch: an empty C function with its argument.
\set n random(1000000000000000000, 1000000000000000000 + :channels - 1)
SELECT nothing('channel-000000000000-' || :n);
