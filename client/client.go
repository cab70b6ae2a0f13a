// Package client opens a berth.Service for programs: on the embedded store
// with Open, or on a server with Dial.
//
//	service, err := client.Open(ctx, client.Config{Infra: "infra.yml"})
//	task, err := service.SubmitTask(ctx, berth.Submission{Spec: berth.TaskSpec{Image: "docker.io/library/busybox:1.35", Args: []string{"echo", "hi"}}})
//	for task, err := range service.WatchTask(ctx, task.ID) { ... }
package client

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/control"
	"github.com/berth-run/berth/internal/version"
)

// Config says where the embedded store is. The zero value means what the
// command line means without flags.
type Config struct {
	Infra string       // path of infra.yml; empty: BERTH_INFRA, ./infra.yml, then the user's own
	Data  string       // data directory; empty: BERTH_DATA, then the one beside infra.yml
	Log   *slog.Logger // for the operator; nil: nowhere
}

// Open joins the embedded store: this process becomes its host, or the guest
// of the process that is. Close it to leave; tasks go on in their clusters,
// and are reconciled by whoever opens the store next.
func Open(ctx context.Context, c Config) (berth.Service, error) {
	infra, err := config.Locate(c.Infra)
	if err != nil {
		return nil, err
	}
	data, err := filepath.Abs(config.DataDir(c.Data, infra))
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "data directory: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return control.Open(ctx, control.Config{InfraPath: infra, DataDir: data, Version: version.String(), Log: c.Log})
}
