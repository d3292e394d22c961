-- What psql shows when something is refused: message, detail and hint.
\set SHOW_CONTEXT never

-- Names
SELECT presence_add(NULL, 'c');
SELECT presence_add('r', NULL);
SELECT presence_add('', 'c');
SELECT presence_add('r', repeat('é', 256));
SELECT presence_add('r', 'c', '');
SELECT presence_touch('');
SELECT presence_touch(NULL);
SELECT * FROM presence_list(NULL);
SELECT presence_count('');
SELECT presence_user_rooms(repeat('x', 300));

-- Arrays
SELECT presence_touch_many(NULL);
SELECT presence_touch_many('{a,NULL,c}');
SELECT presence_leave_all_many(ARRAY['a', '']);
SELECT * FROM presence_online('{a,NULL}');
SELECT presence_add_many('r', '{a,b}', '{u}');
SELECT presence_add_many('r', '{a,b}', '{u,v}', '{"{}"}');

-- Metas
SELECT presence_add('r', 'c', NULL, '[1, 2]');
SELECT presence_add('r', 'c', NULL, 'null');
SELECT presence_update('r', 'c', NULL);
SELECT presence_update('r', 'c', '"Alice"');
SELECT presence_add_many('r', '{a}', NULL, ARRAY['5']::jsonb[]);

-- Others
SELECT presence_receive('c', NULL);
SELECT prune_presences(-1);
SELECT prune_presences('NaN');
SELECT presence_grant('nobody_of_that_name');
SELECT presence_grant(current_user::regrole, 'king');
SELECT presence_schedule_pruning();
SET presence.max_age = '5s';

-- In a transaction that is to be prepared
BEGIN;
SELECT presence_add_many('r', '{c}');
PREPARE TRANSACTION 'presence';

-- Nothing was written.
SELECT * FROM presence.presences;
SELECT name FROM presence.rooms;
