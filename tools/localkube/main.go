// Command localkube brings real Kubernetes up on a bare Debian machine: from Go modules and Debian's
// packages, without pulling an image from anywhere. It is for tests, demos and benchmarks.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "localkube: "+err.Error())
		os.Exit(1)
	}
}
