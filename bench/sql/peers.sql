-- The tables of the peers.  Both have the indexes of presence.presences, since
-- each serves the same questions: who is here, where is this channel, this user.

-- Nothing attached: what the disk and the indexes cost.
CREATE SCHEMA bare;
CREATE TABLE bare.presences (LIKE presence.presences INCLUDING ALL);
ALTER TABLE bare.presences SET (fillfactor = 80);

-- What one writes by hand: the same table, heartbeats as HOT updates (last_seen
-- is not indexed, pages have room), a trigger that tells each join and leave.
CREATE SCHEMA peer;
CREATE TABLE peer.presences (LIKE presence.presences INCLUDING ALL);
ALTER TABLE peer.presences SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

CREATE FUNCTION peer.tell() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r peer.presences := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
	PERFORM pg_notify('peer_changed', json_build_object(
		'event', CASE WHEN TG_OP = 'DELETE' THEN 'leave' ELSE 'join' END, 'room', r.room,
		CASE WHEN TG_OP = 'DELETE' THEN 'removed' ELSE 'added' END,
		json_build_object('id', r.id, 'channel_name', r.channel_name, 'user_id', r.user_id,
						  'meta', r.meta, 'joined_at', r.joined_at))::text);
	RETURN NULL;
END
$$;
CREATE TRIGGER tell AFTER INSERT OR DELETE ON peer.presences FOR EACH ROW EXECUTE FUNCTION peer.tell();
