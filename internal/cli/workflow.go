package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/workflow"
)

func (a *app) workflowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "workflow", Short: "Run workflows: programs whose calls are tasks", Aliases: []string{"workflows"},
		Long: "A workflow is a Starlark program whose calls of packaged functions are tasks. See docs/workflows.md.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.workflowCheckCommand(), a.workflowRunCommand(), a.workflowListCommand(), a.workflowGetCommand(), a.workflowResumeCommand(), a.workflowCancelCommand(), a.workflowLogsCommand(), a.workflowGraphCommand())
	return cmd
}

func (a *app) workflowCheckCommand() *cobra.Command {
	var on string
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Tell what is wrong with a workflow before it runs", Args: exactly(1, "the file of a workflow"),
		Long: `Tell what is wrong with a workflow, and with the files that it loads, without
running it: names that are not known, packages, functions and arguments that
there are not, values of another type than is declared, futures used as values.

The exit code is 1 when something was found, 125 when the check itself failed.`,
		Example: "  berth workflow check wordcount.star",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("on") && on == "" {
				return errors.New("--on is empty; leave it away, or name an infrastructure")
			}
			report, program, err := a.checkWorkflow(cmd, args[0], on)
			if err != nil {
				return err
			}
			if err := a.print(report, func(w io.Writer) { workflowPage(w, args[0], &report, program) }); err != nil {
				return err
			}
			if len(report.Problems) > 0 {
				return exitError(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&on, "on", "", "look for packages in the registry of this infrastructure too, not only in Berth's own")
	a.outputFlag(cmd)
	return cmd
}

// checkWorkflow reads a workflow and checks it.
func (a *app) checkWorkflow(cmd *cobra.Command, file, on string) (workflow.Report, *workflow.Program, error) {
	program, err := loadWorkflow(file)
	var problems workflow.Problems
	if errors.As(err, &problems) {
		return workflow.Report{File: filepath.Base(file), Parameters: []workflow.Parameter{}, Packages: []workflow.Used{}, Problems: problems}, program, nil
	}
	if err != nil {
		return workflow.Report{}, nil, err
	}
	var report workflow.Report
	err = a.packages(cmd, func(ctx context.Context, service berth.Service, store *images.Store) error {
		if err := knownInfrastructure(ctx, service, on); err != nil {
			return err
		}
		report, err = program.Check(func(name, version string) (berth.Package, error) {
			found, err := store.Inspect(ctx, name, version)
			if berth.CodeOf(err) == berth.CodeNotFound && on != "" {
				return service.Package(ctx, on, name, version)
			}
			return found, err
		})
		return err
	})
	return report, program, err
}

// knownInfrastructure is an error for a name that infra.yml doesn't have; what
// a lookup says of one would seem to be about the package.
func knownInfrastructure(ctx context.Context, service berth.Service, name string) error {
	if name == "" {
		return nil
	}
	list, err := service.Infrastructures(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(i berth.Infrastructure) bool { return i.Name == name }) {
		return berth.Errorf(berth.CodeNotFound, "there is no infrastructure %q: see berth infra list", name)
	}
	return nil
}

// loadWorkflow reads a workflow with what it loads, which is below its folder.
func loadWorkflow(file string) (*workflow.Program, error) {
	folder, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, pathCause(err))
	}
	defer folder.Close()
	program, err := workflow.Load(folder.FS(), filepath.Base(file))
	var problems workflow.Problems
	if err != nil && !errors.As(err, &problems) {
		return nil, fmt.Errorf("cannot read %s: %w", file, pathCause(err))
	}
	return program, err
}

// pathCause is what went wrong with a file, without its name.
func pathCause(err error) error {
	var onDisk *fs.PathError
	if errors.As(err, &onDisk) {
		return onDisk.Err
	}
	return err
}

// longLine is one that nobody would find a place in.
const longLine = 200

// spaces makes the width of a line what it looks like.
var spaces = strings.NewReplacer("\t", "    ")

// workflowPage tells what a check found, as compilers do.
func workflowPage(w io.Writer, file string, report *workflow.Report, program *workflow.Program) {
	for _, p := range report.Problems {
		p := p
		source := []rune(program.Line(p.File, p.Line))
		p.File = filepath.Join(filepath.Dir(file), filepath.FromSlash(p.File))
		fmt.Fprintln(w, p)
		if len(source) == 0 || len(source) > longLine {
			continue
		}
		before := spaces.Replace(string(source[:min(max(p.Column-1, 0), len(source))]))
		fmt.Fprintf(w, "    %s\n    %s^\n", spaces.Replace(string(source)), strings.Repeat(" ", utf8.RuneCountInString(before)))
	}
	if n := len(report.Problems); n > 0 {
		return
	}
	fmt.Fprintf(w, "%s: nothing wrong was found\n", file)
	fmt.Fprintf(w, "  main(%s)\n", workflowParameters(report.Parameters))
	for _, used := range report.Packages {
		fmt.Fprintf(w, "  %s@%s: %s\n", used.Name, used.Version, strings.Join(used.Functions, ", "))
	}
}

func workflowParameters(parameters []workflow.Parameter) string {
	var words []string
	for _, p := range parameters {
		word := p.Name
		if p.Default != "" {
			word += " = " + p.Default
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}
