//go:build !crashpoints

// Package crash names the places between two writes at which a process may die,
// so that tests can have it die just there. It is nothing in the program that
// people run: [Point] is empty and inlined away. Built with the tag crashpoints
// (bin/berth-crash), it reads two variables of the environment:
//
//	BERTH_CRASH=NAME[:N]   the process kills itself by SIGKILL when it passes that point for the N-th time (default: the first)
//	BERTH_CRASH_CLOCK=FILE Now is as much ahead of the machine's clock as the file says (such as 3h or -20m), or behind it
//
// Package points finds the names in the sources, so one that is added is tested
// without being listed anywhere.
package crash

import "time"

// Point is passed between two writes. The name is PACKAGE.WHAT-IS-DONE.
func Point(string) {}

// Now is the time by the machine's clock.
func Now() time.Time { return time.Now() }
