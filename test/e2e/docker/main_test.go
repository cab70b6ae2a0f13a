//go:build e2e

// Package docker runs the berth binary, and the driver that it has for them, on
// a real Docker Engine that the tests bring up themselves.
package docker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const busybox = "docker.io/library/busybox:1.35"

var (
	berthBinary string
	shared      *dockerd
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if berthBinary, err = filepath.Abs("../../../bin/berth"); err != nil {
		return 1, err
	}
	if _, err := os.Stat(berthBinary); err != nil {
		return 1, fmt.Errorf("run make build first: %w", err)
	}
	if shared, err = startEngine(); err != nil {
		return 1, err
	}
	defer func() {
		if left := shared.end(); err == nil {
			err = left
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := shared.importBusybox(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}
