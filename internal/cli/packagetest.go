package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/berth-run/berth"
)

const goarch = runtime.GOARCH

func (a *app) packageTestCommand() *cobra.Command {
	var f runFlags
	var only []string
	cmd := &cobra.Command{
		Use: "test NAME[@VERSION]", Short: "Call every function of a package once",
		Long: `Call every function of a package once, with the arguments that container.yml gives
as example: (or default:), and show what came back. On a terminal, what has neither
is asked for; elsewhere such a function is skipped, and said to be.

Exit code 1 when a function failed.`,
		Args: exactly(1, "the name of a package"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, err := packageName(args[0])
			if err != nil {
				return err
			}
			var spec berth.TaskSpec
			if err := f.resources(cmd, &spec); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				pkg, err := service.Package(ctx, spec.Infrastructure, name, version)
				if err != nil {
					return err
				}
				return a.testPackage(ctx, service, &pkg, spec, only)
			})
		},
	}
	cmd.Flags().StringSliceVar(&only, "function", nil, "only these functions")
	a.resourceFlags(cmd, &f)
	_ = cmd.Flags().MarkHidden("detach")
	return cmd
}

// tested is what became of one function.
type tested struct {
	Function string          `json:"function"`
	Task     string          `json:"task"`
	State    string          `json:"state"` // of the task, or skipped
	Result   json.RawMessage `json:"result"`
	Why      string          `json:"why"`
	Seconds  float64         `json:"seconds"`
}

func (a *app) testPackage(ctx context.Context, service berth.Service, pkg *berth.Package, spec berth.TaskSpec, only []string) error {
	for _, name := range only {
		if pkg.Function(name) == nil {
			return fmt.Errorf("package %s has no function %s", pkg.Name, name)
		}
	}
	ask := a.asker()
	var all []tested
	failed := false
	for i := range pkg.Functions {
		function := &pkg.Functions[i]
		if len(only) > 0 && !slices.Contains(only, function.Name) {
			continue
		}
		result, err := a.testFunction(ctx, service, pkg, function, spec, ask)
		if err != nil {
			return err
		}
		failed = failed || result.State != string(berth.StateSucceeded) && result.State != "skipped"
		all = append(all, result)
	}
	if err := a.print(all, func(w io.Writer) {
		row(w, "FUNCTION", "STATE", "TIME", "RESULT")
		for _, t := range all {
			shown := string(t.Result)
			if t.Why != "" {
				shown = t.Why
			}
			row(w, t.Function, t.State, fmt.Sprintf("%.1fs", t.Seconds), oneLine(shown))
		}
	}); err != nil {
		return err
	}
	if failed {
		return exitError(1)
	}
	return nil
}

func (a *app) testFunction(ctx context.Context, service berth.Service, pkg *berth.Package, function *berth.Function, spec berth.TaskSpec, ask func(*berth.Parameter) (json.RawMessage, error)) (tested, error) {
	out := tested{Function: function.Name, State: "skipped"}
	call := &berth.Call{Package: pkg.Name, Version: pkg.Version, Digest: pkg.Digest, Function: function.Name, Arguments: map[string]json.RawMessage{}}
	for i := range function.Inputs {
		in := &function.Inputs[i]
		switch {
		case len(in.Example) > 0:
			call.Arguments[in.Name] = in.Example
		case len(in.Default) > 0 || in.Optional:
		case ask != nil:
			value, err := ask(in)
			if err != nil {
				return out, err
			}
			call.Arguments[in.Name] = value
		default:
			out.Why = "input " + in.Name + " has no example in container.yml"
			return out, nil
		}
	}
	spec.Call = call
	began := time.Now()
	task, err := service.SubmitTask(ctx, berth.Submission{Spec: spec})
	if err != nil {
		return out, err
	}
	out.Task = task.ID
	view := a.newLive()
	for t, err := range service.WatchTask(ctx, task.ID) {
		if err != nil {
			view.close()
			return out, err
		}
		task = t
		view.show(t)
	}
	view.close()
	out.State, out.Result, out.Seconds = string(task.State), task.Result, time.Since(began).Seconds()
	if d := task.Diagnosis; d != nil {
		out.Why = string(d.Cause) + ": " + d.Summary
	}
	return out, nil
}

// asker asks for an argument on a terminal; nil where there is none.
func (a *app) asker() func(*berth.Parameter) (json.RawMessage, error) {
	file, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || a.output != "table" {
		return nil
	}
	lines := bufio.NewScanner(file)
	return func(in *berth.Parameter) (json.RawMessage, error) {
		what := in.Type
		if in.Secret {
			what = "reference, such as secret:KEY"
		}
		for {
			fmt.Fprintf(a.stderr, "%s (%s): ", in.Name, what)
			if !lines.Scan() {
				return nil, exitError(berth.ExitCancelled)
			}
			fn := berth.Function{Name: "f", Inputs: []berth.Parameter{*in}}
			pkg := berth.Package{Functions: []berth.Function{fn}}
			word := in.Name + "=" + strings.TrimSpace(lines.Text())
			_, value, err := pkg.ParseArgument("f", word)
			if err == nil {
				return value, nil
			}
			fmt.Fprintln(a.stderr, "berth: "+clean(err.Error()))
		}
	}
}

// sorted yields a map by its keys.
func sorted[T any](m map[string]T) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}
