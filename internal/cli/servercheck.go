package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/control"
)

// exitProblems is for a store in which something is wrong.
const exitProblems exitError = 1

func (a *app) serverCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Look whether a store is whole",
		Long: `Look at all of the store of a data directory, or of a database, and change
nothing: whether its files are whole, each task can be read and is found by what
it says, and nothing is left of tasks that aren't there. A server may use it
meanwhile.

Exit codes: 0 when all is well, 1 when something is wrong, 125 when the store
can't be looked at.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("server") {
				return fmt.Errorf("berth server check looks at a store of this machine, or at a database: leave out --server")
			}
			return a.checkStore(cmd.Context())
		},
	}
	a.databaseFlag(cmd)
	a.outputFlag(cmd)
	return cmd
}

func (a *app) checkStore(ctx context.Context) error {
	if ctx == nil {
		ctx = context.Background()
	}
	address, err := a.databaseAddress()
	if err != nil {
		return err
	}
	c := control.Config{Database: address}
	if address == "" {
		infra, err := config.Locate(a.infra)
		if err != nil {
			return err
		}
		if c.DataDir, err = filepath.Abs(config.DataDir(a.data, infra)); err != nil {
			return err
		}
	}
	found, err := control.CheckStore(ctx, c)
	if err != nil {
		return err
	}
	if err := a.print(found, func(w io.Writer) { checkTable(w, found) }); err != nil {
		return err
	}
	if !found.OK() {
		fmt.Fprintln(a.stderr, "berth: something is wrong with the store; a copy of a moment when it was well is the remedy (docs/server.md)")
		return exitProblems
	}
	return nil
}

func checkTable(w io.Writer, found *control.StoreCheck) {
	if found.OK() {
		fmt.Fprintf(w, "OK: %s: %d tasks, %d events, schema %d\n", found.Place, found.Tasks, found.Events, found.Schema)
		return
	}
	for _, problem := range found.Problems {
		fmt.Fprintln(w, oneLine(problem))
	}
}
