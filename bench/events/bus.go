package main

import (
	"context"
	"time"
)

// A bus carries events from one program to others over loopback. What is sent
// names one of the bus's subjects; deliveries come to consumers that are
// numbered from 0, each on a goroutine of its own.
type bus interface {
	// open makes the consumers for subjects numbered from 0 to subjects-1; they
	// are in force when it returns.
	open(ctx context.Context, consumers, subjects int, deliver func(consumer int, d delivery)) error
	// post sends one event. It may wait.
	post(ctx context.Context, subject int) error
	// servers are the processes between sender and consumers.
	servers() []int
	// close ends the consumers and returns what went wrong with them.
	close() error
}

// A delivery is what one consumer got at once.
type delivery struct {
	subject int
	count   uint64 // events it stands for
	lost    uint64 // events it says are lost
	// When the sending node took in the oldest and the newest of them; zero if
	// the bus does not tell.
	oldest, newest time.Time
}
