-- Each client is one user who moves in one room.
\set x random(0, 1920)
\set y random(0, 1080)
SELECT presence_cursor_update('canvas', 'user-' || :client_id, :x, :y);
