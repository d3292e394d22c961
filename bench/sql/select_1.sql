-- The bar: a statement that does nothing, with the work pgbench has for a touch.
\set n random(1000000000000000000, 1000000000000000000 + :channels - 1)
SELECT 1;
