#!/usr/bin/perl
# What waking up costs on this machine: two processes that do on loopback what
# two nodes of a quiet cluster do, and nothing else. Each sends 44 bytes twice a
# second, at its own times, and receives as much; nothing is sealed, decoded or
# judged. An agent can not take less processor time than the cheaper of them.
#
#     perl bench/wakes.pl
use strict;
use warnings;
use Socket;
use Time::HiRes qw(time sleep);

my ($seconds, $every) = (30, 0.5);

sub used {    # nanoseconds of processor time so far
	open my $f, '<', "/proc/$$/schedstat" or die "/proc/$$/schedstat: $!";
	my ($ns) = split ' ', <$f>;
	return $ns;
}

my @sockets = map {
	socket(my $s, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
	bind $s, sockaddr_in(0, INADDR_LOOPBACK) or die "bind: $!";
	$s;
} 0, 1;
my $child = fork // die "fork: $!";
my ($mine, $other) = $child ? @sockets : reverse @sockets;
connect($mine, getsockname $other) or die "connect: $!";
sleep $every / 4 unless $child;

my ($due, $begin, $end) = (time, time + 1, time + 1 + $seconds);
my ($before, $wakes) = (0, 0);
while (time < $end) {
	($before, $wakes) = (used(), 0) if !$before && time > $begin;
	vec(my $ready = '', fileno $mine, 1) = 1;
	my $left = $due - time;
	my $n = select $ready, undef, undef, $left > 0 ? $left : 0;
	$wakes++;
	recv $mine, my $datagram, 100, 0 if $n > 0;
	if (time >= $due) {
		send $mine, 'x' x 44, 0;
		$due += $every;
	}
}
my $ns = used() - $before;
printf "%.1f wake-ups a second, %.4f s of processor time per minute, %.0f us for each\n",
	$wakes / $seconds, $ns / 1e9 * 60 / $seconds, $ns / $wakes / 1e3;
waitpid $child, 0 if $child;
