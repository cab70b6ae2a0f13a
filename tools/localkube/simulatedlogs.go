package main

import (
	"github.com/spf13/cobra"

	"github.com/berth-run/berth/tools/localkube/internal/simulated"
)

// simulatedLogs is run by localkube itself, inside a cluster with simulated nodes.
func simulatedLogs() *cobra.Command {
	var address string
	var files simulated.Files
	cmd := &cobra.Command{
		Use: simulated.Command, Short: "Answer for the logs of simulated pods", Hidden: true, Args: cobra.NoArgs,
		// It needs no source tree: it runs from / and outlives the checkout.
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE:              func(cmd *cobra.Command, _ []string) error { return simulated.Serve(cmd.Context(), address, files) },
	}
	flags := cmd.Flags()
	flags.StringVar(&address, "address", "", "where to listen")
	flags.StringVar(&files.Certificate, "certificate", "", "the server's certificate")
	flags.StringVar(&files.Key, "key", "", "its key")
	flags.StringVar(&files.Authority, "authority", "", "the authority of those who may ask")
	return cmd
}
