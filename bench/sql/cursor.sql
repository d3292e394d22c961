\set u random(1, 200)
\set x random(0, 1920)
\set y random(0, 1080)
SELECT presence_cursor_update('room-' || :u % 100, 'user-' || :u, :x, :y);
