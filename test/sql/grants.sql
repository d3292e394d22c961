-- What roles may do before and after presence_grant.
\set SHOW_CONTEXT never
CREATE ROLE regress_presence_app;

SET ROLE regress_presence_app;
SELECT presence_count('grants');
SELECT presence_touch('c1');
SELECT * FROM presence.members;
SELECT presence_grant('regress_presence_app', 'admin');
RESET ROLE;

SELECT presence_grant('regress_presence_app', 'reader');
SET ROLE regress_presence_app;
SELECT presence_count('grants');
SELECT presence_add('grants', 'c1');
RESET ROLE;

SELECT presence_grant('regress_presence_app');
SET ROLE regress_presence_app;
SELECT room, channel_name FROM presence_add('grants', 'c1');
SELECT presence_touch('c1');
SELECT presence_leave_all('c1');
SELECT prune_rooms();
RESET ROLE;

SELECT presence_grant('regress_presence_app', 'admin');
SET ROLE regress_presence_app;
SELECT prune_rooms();
SELECT prune_presences();
TRUNCATE presence.presences;
RESET ROLE;

-- One tenant of many, by a policy
SELECT room FROM presence_add('red:1', 'r1', 'rita'), presence_add('blue:1', 'b1', 'bill') b (i, r);
ALTER TABLE presence.presences ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON presence.presences USING (room LIKE current_setting('app.tenant') || ':%');
SET ROLE regress_presence_app;
SET app.tenant = 'red';
SELECT channel_name FROM presence.members;
SELECT presence_touch('r1'), presence_touch('b1');
SELECT presence_leave_all('b1');
SELECT presence_add('blue:1', 'r1');
RESET ROLE;
DROP POLICY tenant ON presence.presences;
ALTER TABLE presence.presences DISABLE ROW LEVEL SECURITY;
SELECT presence_leave_all_many('{r1,b1}');

SELECT presence_revoke('regress_presence_app');
SET ROLE regress_presence_app;
SELECT presence_count('grants');
SELECT presence_touch('r1');
RESET ROLE;
DROP ROLE regress_presence_app;
SELECT prune_rooms();
