//go:build !e2e

package cli

import "testing"

// TestScripts needs no cluster, and is one of the unit tests: beside those on a
// cluster it would do the same once more.
func TestScripts(t *testing.T) { bothWays(t, "testdata", nil) }
