# Proves: with the policies of the tenants' recipe in docs/recipes.md, one
# tenant reads nothing of another and changes nothing there, by function or by
# plain SQL, as member or as admin.
use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Utils;
use PresenceTest;
use Test::More;

my $node = new_node('tenants', conf => "presence.max_age = 1h\npresence.cursor_timeout = 1h\npresence.join_rate = 1000\npresence.keep_visits = 1d\n");
my ($policies) = slurp_file("$FindBin::RealBin/../../docs/recipes.md") =~ /<!-- test: tenants-policies -->\n```sql\n(.*?)^```$/ms
  or BAIL_OUT('docs/recipes.md has no policies');

await_announcer($node);
$node->safe_psql('postgres', $policies);

# Run statements for a tenant, as the gateway does: returns the output of each,
# or its SQLSTATE.
sub as_tenant
{
	my ($tenant, @statements) = @_;
	my $script = join('', map { "$_;\n\\echo @@ :SQLSTATE\n" } @statements);
	my @results;

	$node->psql('postgres', "SET ROLE gateway; SET app.tenant = '$tenant';\n$script", stdout => \my $out, stderr => \my $err, on_error_stop => 0);
	push @results, $2 eq '00000' ? $1 =~ s/\n\z//r : $2 while $out =~ /\G(.*?)^@@ (\w{5})(?:\n|\z)/gms;
	return wantarray ? @results : $results[0];
}

# What the first tenant has.
as_tenant('globex',
	q{SELECT presence_add('globex/lobby', 'globex/77ab', 'globex/gus', '{"secret": "sesame"}')},
	q{SELECT presence_add('globex/lobby', 'globex/78cd', 'globex/gone')},
	q{SELECT presence_leave_all('globex/78cd')},
	q{SELECT presence_set_status('globex/gus', 'busy', 'sesame')},
	q{SELECT presence_set_state('globex/lobby', 'k', '"sesame"', 3600)},
	q{SELECT presence_cursor_update('globex/lobby', 'globex/gus', 1, 2)});
$node->safe_psql('postgres', q{
	SELECT presence_configure_room('globex/lobby', max_members => 50, private => true, meta => '{"secret": "sesame"}');
	SELECT presence_configure_room('globex/empty', meta => '{"secret": "sesame"}');
	SELECT presence_invite('globex/lobby', 'globex/gus'), presence_ban('globex/lobby', 'globex/bad', reason => 'sesame');
	SELECT presence_add('acme/lobby', 'acme/0d1f', 'acme/alice');
	INSERT INTO presence.admissions VALUES ('globex/lobby', 'globex/gus', now())});

# All of that; also whether there was a heartbeat since.
my $since;

sub what_globex_has
{
	my $tables = join(' UNION ALL ', map { "SELECT \$\$$_->[0] \$\$ || @{[ $_->[2] // 't' ]}::text FROM $_->[0] t WHERE $_->[1] LIKE 'globex/%'" } (
		[ 'presence.presences', 'room' ], [ 'presence.members', 'channel_name', "(channel_name, last_seen > '$since')" ],
		[ 'presence.rooms', 'name' ], [ 'presence.people', 'user_id' ], [ 'presence.user_last_seen', 'user_id' ], [ 'presence.visits', 'room' ],
		[ 'presence.bans', 'room' ], [ 'presence.invitations', 'room' ], [ 'presence.admissions', 'room' ],
		[ q{presence_get_state('globex/lobby')}, q{'globex/' || t.key}, '(key, value)' ],
		[ q{presence_cursors('globex/lobby')}, 't.user_id', '(user_id, x, y)' ]));

	return [ split /\n/, value($node, "SELECT string_agg(t, E'\\n' ORDER BY t) FROM ($tables) x (t)") ];
}

# Each attack, and its result: the output, or the SQLSTATE.
my @as_member = (
	# reading
	(map { [ "SELECT count(*) FROM presence.$_->[0] WHERE $_->[1] NOT LIKE 'acme/%'", 0 ] } (
		[ 'presences', 'room' ], [ 'members', 'room' ], [ 'rooms', 'name' ], [ 'room_list', 'room' ], [ 'people', 'user_id' ],
		[ 'user_last_seen', 'user_id' ], [ 'visits', 'room' ], [ 'bans', 'user_id' ], [ 'invitations', 'room' ])),
	[ q{SELECT count(*) FROM presence_list('globex/lobby')}, 0 ],
	[ q{SELECT count(*) FROM presence_users('globex/lobby')}, 0 ],
	[ q{SELECT presence_count('globex/lobby'), presence_anonymous_count('globex/lobby')}, '0|0' ],
	[ q{SELECT * FROM presence_counts('globex/lobby')}, '0|0|0' ],
	[ q{SELECT presence_snapshot('globex/lobby') -> 'members'}, '[]' ],
	[ q{SELECT count(*) FROM presence_rooms('globex/77ab')}, 0 ],
	[ q{SELECT count(*) FROM presence_user_rooms('globex/gus')}, 0 ],
	[ q{SELECT presence_is_online('globex/gus'), (SELECT count(*) FROM presence_online('{globex/gus}'))}, 'f|0' ],
	[ q{SELECT status, chosen_status, custom_message, connections, last_seen FROM presence_status('globex/gus')}, 'offline|||0|' ],
	[ q{SELECT status, last_seen FROM presence_statuses('{globex/gone}')}, 'offline|' ],
	[ q{COPY presence.presences (room) TO STDOUT}, 'acme/lobby' ],
	# entering and leaving
	[ q{SELECT presence_add('globex/lobby', 'acme/0d1f', 'acme/alice')}, '42501' ],
	[ q{SELECT presence_add('globex/new', 'acme/0d1f')}, '42501' ],
	[ q{SELECT presence_add('acme/lobby', 'globex/77ab')}, '42501' ],
	[ q{SELECT presence_add('acme/lobby', 'acme/0d1f', 'globex/gus')}, '42501' ],
	[ q{SELECT presence_add_many('acme/lobby', '{acme/1,globex/77ab}')}, '42501' ],
	[ q{SELECT presence_add_many('globex/lobby', '{acme/1}')}, '42501' ],
	[ q{SELECT presence_update('globex/lobby', 'globex/77ab', '{"a": 1}')}, 'f' ],
	[ q{SELECT presence_touch('globex/77ab'), presence_touch_many('{globex/77ab}'), presence_receive('globex/77ab', 'x')}, 'f|{globex/77ab}|t' ],
	[ q{SELECT presence_remove('globex/lobby', 'globex/77ab'), presence_leave_all('globex/77ab'), presence_leave_all_many('{globex/77ab}')}, 'f|0|0' ],
	[ q{INSERT INTO presence.presences (room, channel_name) VALUES ('globex/lobby', 'acme/1')}, '42501' ],
	[ q{INSERT INTO presence.presences (room, channel_name) VALUES ('acme/lobby', 'globex/77ab')}, '42501' ],
	[ q{INSERT INTO presence.presences (room, channel_name, user_id) VALUES ('acme/lobby', 'acme/1', 'globex/gus')}, '42501' ],
	[ q{UPDATE presence.presences SET room = 'globex/lobby'}, '42501' ],
	[ q{UPDATE presence.presences SET channel_name = 'globex/77ab'}, '42501' ],
	[ q{UPDATE presence.presences SET user_id = 'globex/gus'}, '42501' ],
	[ q{UPDATE presence.presences SET meta = '{}' WHERE room = 'globex/lobby' RETURNING room}, '' ],
	[ q{DELETE FROM presence.presences WHERE room LIKE 'globex/%' RETURNING room}, '' ],
	[ q{INSERT INTO presence.rooms (name) VALUES ('globex/other')}, '42501' ],
	# people
	[ q{SELECT presence_set_status('globex/gus', 'offline')}, '42501' ],
	[ q{UPDATE presence.people SET chosen_status = 'away' WHERE user_id = 'globex/gus' RETURNING user_id}, '' ],
	[ q{INSERT INTO presence.people (user_id, chosen_status) VALUES ('globex/gone', 'away')}, '42501' ],
	# state and broadcasts
	(map { [ "SELECT * FROM $_", '42501' ] } (
		q{presence_get_state('globex/lobby')}, q{presence_set_state('globex/lobby', 'k', '1')}, q{presence_clear_state('globex/lobby', 'k')},
		q{presence_cursors('globex/lobby')}, q{presence_cursor_update('globex/lobby', 'acme/alice', 1, 2)},
		q{presence_cursor_remove('globex/lobby', 'globex/gus')}, q{presence_typing('globex/lobby', 'globex/gus', true)},
		q{presence_typing_users('globex/lobby')}, q{presence_broadcast('globex/lobby', 'e')}, q{presence_broadcast('globex/none', 'e')})),
	# what the manual says a known name reveals
	[ q{SELECT presence.effective_last_seen('globex/77ab', 'epoch') > presence.effective_last_seen('globex/none', 'epoch')}, 't' ],
);
my @as_admin = (
	[ q{SELECT count(*) FROM presence.admissions WHERE room NOT LIKE 'acme/%'}, 0 ],
	[ q{SELECT presence_configure_room('globex/lobby', private => false)}, '42501' ],
	[ q{SELECT presence_configure_room('globex/other')}, '42501' ],
	[ q{SELECT presence_invite('globex/lobby', 'globex/friend')}, '42501' ],
	[ q{SELECT presence_invite('globex/lobby', 'acme/alice')}, '42501' ],
	[ q{SELECT presence_invite('acme/lobby', 'globex/gus')}, '42501' ],
	[ q{SELECT presence_uninvite('globex/lobby', 'globex/gus')}, 'f' ],
	[ q{SELECT presence_kick('globex/lobby', 'globex/gus'), presence_kick('globex/lobby', channel_name => 'globex/77ab')}, '0|0' ],
	[ q{SELECT presence_ban('globex/lobby', 'globex/gus')}, '42501' ],
	[ q{SELECT presence_ban(NULL, 'globex/gus')}, '42501' ],
	[ q{SELECT presence_ban(NULL, 'acme/alice')}, '42501' ],
	[ q{SELECT presence_unban('globex/lobby', 'globex/bad')}, 'f' ],
	[ q{UPDATE presence.rooms SET name = 'globex/lobby2' WHERE name LIKE 'globex/%' RETURNING name}, '' ],
	[ q{UPDATE presence.rooms SET name = 'globex/mine'}, '42501' ],
	[ q{UPDATE presence.bans SET until = now() RETURNING room}, '' ],
	[ q{DELETE FROM presence.bans RETURNING room}, '' ],
	[ q{DELETE FROM presence.invitations RETURNING room}, '' ],
	[ q{DELETE FROM presence.admissions WHERE room LIKE 'globex/%' RETURNING room}, '' ],
	[ q{DELETE FROM presence.people RETURNING user_id}, '' ],
	[ q{DELETE FROM presence.user_last_seen WHERE user_id LIKE 'globex/%' RETURNING user_id}, '' ],
	[ q{DELETE FROM presence.visits WHERE room LIKE 'globex/%' RETURNING room}, '' ],
	[ q{SELECT prune_rooms()}, 0 ],
	[ q{SELECT prune_presences(0)}, 1 ],		# its own
	[ q{DELETE FROM presence.rooms RETURNING name}, 'acme/lobby' ],
);

ok(wait_until('who has gone was last seen', sub { value($node, q{SELECT count(*) FROM presence.user_last_seen}) > 0 }), 'globex has all there is');
$since = value($node, 'SELECT clock_timestamp()');
my $before = what_globex_has();
is((grep { /sesame/ } @$before), 6, 'with its secrets');

foreach my $level ('member', 'admin')
{
	$node->safe_psql('postgres', "SELECT presence_grant('gateway', '$level')");
	my @attacks = (@as_member, $level eq 'admin' ? @as_admin : ());
	my @results = as_tenant('acme', map { $_->[0] } @attacks);

	is(shift(@results), $_->[1], "$level: $_->[0]") foreach @attacks;
	is_deeply(what_globex_has(), $before, "$level: globex has what it had");
}
is(as_tenant('globex', q{SELECT presence_touch('globex/77ab')}), 't', 'and is alive');

# Without a tenant nothing is visible.
is(as_tenant('', q{SELECT count(*) FROM presence.presences}), 0, 'for no tenant nobody is there');
is($node->psql('postgres', 'SET ROLE gateway; SELECT count(*) FROM presence.presences'), 3, 'where none is said an error is raised');

$node->stop;
done_testing();
