package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/control"
)

// apiCommand serves the API to the program that started it, as the Python package
// does where there is no server: on a socket that only its user can open, until
// its standard input ends.
func (a *app) apiCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use: "api --socket PATH", Short: "Serve the API to the program that started this", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error { return a.serveAPI(ctx, service, socket) })
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "path of the unix socket to listen on")
	_ = cmd.MarkFlagRequired("socket")
	return cmd
}

func (a *app) serveAPI(ctx context.Context, service berth.Service, socket string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("--socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return fmt.Errorf("--socket: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, a.stdin) // it ends with the program that started this
		cancel()
	}()
	fmt.Fprintln(a.stdout, "ready")
	return control.ServeAPI(ctx, service, listener)
}
