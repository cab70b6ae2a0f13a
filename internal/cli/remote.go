package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/client"
)

// remoteFlags say which server to use, in place of a data directory of this machine.
type remoteFlags struct {
	server, token, caFile string

	also bool // an argument names a server too, which token and caFile are for
}

func (a *app) remoteFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&a.remote.server, "server", "", "https://HOST:PORT of a berth server, in place of an infra.yml here (BERTH_SERVER)")
	flags.StringVar(&a.remote.token, "token", "", "token for the server (BERTH_TOKEN, or a file of BERTH_TOKEN_FILE; other users can see what is on a command line)")
	flags.StringVar(&a.remote.caFile, "ca-file", "", "CA that the server's certificate is from (BERTH_CA_FILE; default: the system's)")
	_ = root.RegisterFlagCompletionFunc("token", cobra.NoFileCompletions)
}

// serverAddress is the server to use; empty for the embedded store.
func (a *app) serverAddress() string {
	return orEnv(a.remote.server, "BERTH_SERVER")
}

func orEnv(flag, variable string) string {
	if flag != "" {
		return flag
	}
	return os.Getenv(variable)
}

// open returns the service that the flags and the environment name.
func (a *app) open(ctx context.Context) (berth.Service, error) {
	address := a.serverAddress()
	if address == "" {
		if (a.remote.token != "" || a.remote.caFile != "") && !a.remote.also {
			return nil, fmt.Errorf("--token and --ca-file are for a server: name it with --server or BERTH_SERVER")
		}
		return client.Open(ctx, client.Config{Infra: a.infra, Data: a.data, Log: a.logger()})
	}
	if a.infra != "" || a.data != "" {
		return nil, fmt.Errorf("--infra and --data are for a store of this machine, and %s is a server: leave them out, or --server and BERTH_SERVER", address)
	}
	return a.dial(address)
}

// dial returns the service of a server.
func (a *app) dial(address string) (berth.Service, error) {
	token, err := a.token()
	if err != nil {
		return nil, err
	}
	options := []client.DialOption{client.WhenWaiting(func(reason string) {
		fmt.Fprintf(a.stderr, "berth: waiting for the server %s: %s\n", address, oneLine(reason))
	})}
	if path := orEnv(a.remote.caFile, "BERTH_CA_FILE"); path != "" {
		options = append(options, client.WithCAFile(path))
	}
	return client.Dial(address, token, options...)
}

func (a *app) token() (string, error) {
	if token := orEnv(a.remote.token, "BERTH_TOKEN"); token != "" {
		return strings.TrimSpace(token), nil
	}
	path := os.Getenv("BERTH_TOKEN_FILE")
	if path == "" {
		return "", nil // the server says that one is needed, and how to get it
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the token (BERTH_TOKEN_FILE): %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("the file %s of BERTH_TOKEN_FILE is empty", path)
	}
	return token, nil
}
