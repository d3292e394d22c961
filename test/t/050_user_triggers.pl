# Proves: triggers of a user's own, on the tables of the extension, may call its
# functions and catch their errors without harm to the server or the session.
use strict;
use warnings FATAL => 'all';

use PresenceTest;
use Test::More;

my $node = new_node('user_triggers');

# A trigger that calls presence_add on a full room and catches the error, within
# the statement of another presence_add.
$node->safe_psql(
	'postgres', q{
	SELECT presence_configure_room('full', 1);
	SELECT presence_add('full', 'holder');
	CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.room <> 'full' THEN
			BEGIN
				PERFORM presence_add('full', NEW.channel_name, NEW.user_id, '{"a": 1}');
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
		END IF;
		RETURN NEW;
	END
	$$;
	CREATE TRIGGER follow AFTER INSERT ON presence.presences
		FOR EACH ROW EXECUTE FUNCTION follow();
});
is($node->safe_psql('postgres', q{
	SELECT count((presence_add('lobby', 'c' || n, 'u' || n, jsonb_build_object('text', repeat('x', 500)))).meta)
	FROM generate_series(1, 200) n
}), 200, 'an add whose trigger catches the error of another add returns its row');
is($node->safe_psql('postgres', q{
	SELECT presence_add_many('many', array_agg('m' || n), array_agg('u' || n))
	FROM generate_series(1, 200) n
}), 200, 'so do many');
unlike(log_slice($node), qr/terminated by signal|PANIC|TRAP/, 'and no process crashes');
$node->stop;
done_testing();
