\set u random(1, 200)
SELECT presence_set_state('board-' || :u % 10, 'key-' || :u, '{"x":1,"y":2}', 60);
