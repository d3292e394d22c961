-- The load that runs during sqlsmith: a script for pgbench.
\set n random(1, 1000000)
LISTEN presence_changed;
CALL smith.step(:n);
SELECT presence_snapshot('room' || :n % 5);
