// Package cli is the command line, one file a verb. It works through
// berth.Service alone. Results go to stdout, everything else to stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// exitError ends a command with an exit code; what there is to say was said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// app is what the verbs share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	infra, data    string
	database       string // of berth server
	remote         remoteFlags
	output         string
	verbose        bool
	raw            bool // logs go to a terminal as they are
}

// Main runs a command line and returns the exit code of the process.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin}
	a.stdout, a.stderr = &guard{Writer: stdout, raw: &a.raw}, &guard{Writer: stderr, raw: &a.raw}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(a.stderr, "berth: "+clean(err.Error()))
	return berth.ExitNone
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "berth",
		Short: "Run containers on Kubernetes namespaces that you were given",
		Long: `Berth runs containerised work on Kubernetes namespaces that you were given, on
clusters that you don't own. It needs nothing but a kubeconfig for one namespace.

  berth create-kubeconfig              make a kubeconfig that may do just what Berth needs
  berth infra add NAME --kubeconfig F  name it in infra.yml
  berth run IMAGE ARG...               run a container there
  berth task explain ID                say why it does not start, or failed

Exit codes: the container's own where there is one; 125 when Berth itself failed
or the container never ran; 124 on a timeout; 130 when cancelled.`,
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.infra, "infra", "", "infra.yml to use (BERTH_INFRA; default ./infra.yml, then the user's own)")
	flags.StringVar(&a.data, "data", "", "data directory (BERTH_DATA; default .berth beside infra.yml)")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "tell on stderr what Berth does")
	a.remoteFlags(root)
	root.AddCommand(a.runCommand(), a.callCommand(), a.packageCommand(), a.workflowCommand(), a.cacheCommand(), a.scheduleCommand(), a.clusterCommand(), a.apiCommand(), a.taskCommand(), a.dataCommand(), a.infraCommand(), a.createKubeconfigCommand(), a.serverCommand(), a.versionCommand())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = false
	return root
}

// outputFlag adds -o to a verb that prints a result.
func (a *app) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.output, "output", "o", "table", "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		switch a.output {
		case "table", "json", "yaml":
		default:
			return fmt.Errorf("-o %s: choose table, json or yaml", a.output)
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// rawFlag adds --raw to a verb that shows what programs print.
func (a *app) rawFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.raw, "raw", false, "show output on a terminal as it is, with escape sequences; a file or pipe gets it so anyway")
}

// logger tells the operator what happens; without -v only what went wrong.
func (a *app) logger() *slog.Logger {
	level := slog.LevelError
	if a.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level}))
}

// with opens the service, runs a verb on it, and leaves it.
func (a *app) with(cmd *cobra.Command, fn func(context.Context, berth.Service) error) error {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	service, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer service.Close()
	return fn(ctx, service)
}
