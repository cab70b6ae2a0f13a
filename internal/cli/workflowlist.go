package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) workflowListCommand() *cobra.Command {
	var q berth.RunQuery
	var state string
	cmd := &cobra.Command{
		Use: "list", Short: "List runs of workflows, newest first", Aliases: []string{"ls"}, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.State = berth.RunState(state); state != "" && !slices.Contains(berth.RunStates, q.State) {
				return fmt.Errorf("--state %s: choose of %v", state, berth.RunStates)
			}
			if q.Limit < 1 {
				return fmt.Errorf("--limit %d: use 1 or more", q.Limit)
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				page, err := service.Runs(ctx, q)
				if err != nil {
					return err
				}
				if err := a.print(page.Runs, func(w io.Writer) { runTable(w, page.Runs) }); err != nil {
					return err
				}
				if page.Next != "" {
					fmt.Fprintf(a.stderr, "berth: there are more: --after %s\n", page.Next)
				}
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&state, "state", "", "only runs in this state")
	flags.StringVar(&q.Owner, "owner", "", "only runs of an owner (on a server others' runs are shown to admins alone)")
	flags.IntVar(&q.Limit, "limit", 50, "at most this many")
	flags.StringVar(&q.After, "after", "", "go on behind this id")
	a.outputFlag(cmd)
	return cmd
}

// runTable lists runs, a line each.
func runTable(w io.Writer, runs []berth.Run) {
	row(w, "ID", "WORKFLOW", "STATE", "ON", "CALLS", "FAILED", "RUNNING", "AGE", "WHY")
	for _, run := range runs {
		all := 0
		for _, n := range run.Calls {
			all += n
		}
		reason := ""
		if run.Reason != nil {
			reason = *run.Reason
		}
		row(w, run.ID, oneLine(run.Workflow), string(run.State), run.Infrastructure, strconv.Itoa(all), strconv.Itoa(run.Calls[berth.CallFailed]), strconv.Itoa(run.Calls[berth.CallRunning]), age(run.CreatedAt), oneLine(reason))
	}
}

// runDetails is what -o json has of one run.
type runDetails struct {
	berth.Run
	AllCalls []berth.RunCall `json:"allCalls"`
}

func (a *app) workflowGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get RUN", Short: "Show a run with its calls", Args: exactly(1, "the id of a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				run, calls, err := runWithCalls(ctx, service, args[0])
				if err != nil {
					return err
				}
				return a.printTo(a.drawn(), runDetails{run, calls}, func(w io.Writer) {
					colours := terminalWidth(a.stdout) != nil && os.Getenv("NO_COLOR") == ""
					fmt.Fprintln(w, strings.Join(runTree(&run, calls, colours), "\n"))
					if run.State == berth.RunSucceeded {
						fmt.Fprintf(w, "  result: %s\n", oneLine(string(plain(run.Result))))
					}
					if run.Error != nil {
						runErrorText(w, run.Error, textWidth(a.stdout))
					}
				})
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func runWithCalls(ctx context.Context, service berth.Service, id string) (berth.Run, []berth.RunCall, error) {
	run, err := service.Run(ctx, id)
	if err != nil {
		return run, nil, err
	}
	calls := []berth.RunCall{}
	at := map[string]int{}
	for call, err := range service.RunCalls(ctx, id, false) {
		if err != nil {
			return run, nil, err
		}
		if i, again := at[call.Key]; again {
			calls[i] = call
			continue
		}
		at[call.Key] = len(calls)
		calls = append(calls, call)
	}
	return run, calls, nil
}

func (a *app) completeRuns(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	_ = a.with(cmd, func(ctx context.Context, service berth.Service) error {
		page, err := service.Runs(ctx, berth.RunQuery{Limit: 50})
		for _, run := range page.Runs {
			ids = append(ids, run.ID+"\t"+string(run.State)+" "+oneLine(run.Workflow))
		}
		return err
	})
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) workflowCancelCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "cancel RUN...", Short: "Cancel runs, with their tasks", Args: atLeast(1, "the id of a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				for _, id := range args {
					run, err := service.CancelRun(ctx, id)
					if err != nil {
						return err
					}
					if wait {
						for now, err := range service.WatchRun(ctx, id) {
							if err != nil {
								return err
							}
							run = now
						}
					}
					switch {
					case run.State == berth.RunCancelled:
						fmt.Fprintf(a.stderr, "berth: run %s is cancelled\n", id)
					case run.State.Terminal():
						fmt.Fprintf(a.stderr, "berth: run %s had ended: %s\n", id, run.State)
					default:
						fmt.Fprintf(a.stderr, "berth: run %s is being cancelled\n", id)
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until they have ended")
	return cmd
}

func (a *app) workflowLogsCommand() *cobra.Command {
	var q berth.LogQuery
	cmd := &cobra.Command{
		Use: "logs RUN", Short: "Show the output of a run's tasks, each line behind its task", Args: exactly(1, "the id of a run"), ValidArgsFunction: a.completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				run, err := service.Run(ctx, args[0])
				if err != nil {
					return err
				}
				q.Follow = q.Follow && !run.State.Terminal()
				return a.showLogs(ctx, service, nil, map[string]string{berth.LabelRun: run.ID}, q)
			})
		},
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with what is printed from now on, also by tasks that begin later")
	cmd.Flags().BoolVarP(&q.Timestamps, "timestamps", "t", false, "begin each line with its time")
	a.rawFlag(cmd)
	return cmd
}

func (a *app) workflowGraphCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "graph RUN", Short: "Draw the calls of a run and what they need of each other", Args: exactly(1, "the id of a run"), ValidArgsFunction: a.completeRuns,
		Long: "Draw the calls of a run as a graph, for Graphviz (dot) or Mermaid. An arrow leads from a call to one that was given its future.",
		RunE: func(cmd *cobra.Command, args []string) error {
			draw := map[string]func([]berth.RunCall) string{"dot": dotGraph, "mermaid": mermaidGraph}[format]
			if draw == nil {
				return fmt.Errorf("-o %s: choose dot or mermaid", format)
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				_, calls, err := runWithCalls(ctx, service, args[0])
				if err != nil {
					return err
				}
				_, err = io.WriteString(a.stdout, draw(calls))
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "dot", "dot or mermaid")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"dot", "mermaid"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// callColours are those of nodes by the state of their call.
var callColours = map[berth.CallState]string{berth.CallSucceeded: "#c8e6c9", berth.CallFailed: "#ffcdd2", berth.CallRunning: "#fff9c4", berth.CallCancelled: "#e0e0e0"}

func dotGraph(calls []berth.RunCall) string {
	var out strings.Builder
	out.WriteString("digraph run {\n  node [shape=box, style=\"rounded,filled\"];\n")
	eachCall(calls, func(id string, c *berth.RunCall) {
		fmt.Fprintf(&out, "  %s [label=%q, fillcolor=%q];\n", id, oneLine(callName(c)), callColours[c.State])
	}, func(from, to string) { fmt.Fprintf(&out, "  %s -> %s;\n", from, to) })
	out.WriteString("}\n")
	return out.String()
}

func mermaidGraph(calls []berth.RunCall) string {
	var out strings.Builder
	out.WriteString("flowchart TD\n")
	eachCall(calls, func(id string, c *berth.RunCall) {
		fmt.Fprintf(&out, "  %s[\"%s\"]\n  style %s fill:%s\n", id, strings.ReplaceAll(oneLine(callName(c)), `"`, "#quot;"), id, callColours[c.State])
	}, func(from, to string) { fmt.Fprintf(&out, "  %s --> %s\n", from, to) })
	return out.String()
}

// eachCall gives the nodes of the graph of calls, and then its edges.
func eachCall(calls []berth.RunCall, node func(id string, c *berth.RunCall), edge func(from, to string)) {
	ids := map[string]string{}
	for i := range calls {
		if c := &calls[i]; c.State != berth.CallPrinted {
			ids[c.Key] = "c" + strconv.FormatInt(c.Seq, 10)
			node(ids[c.Key], c)
		}
	}
	for i := range calls {
		for _, needed := range calls[i].Needs {
			if from := ids[needed]; from != "" {
				edge(from, ids[calls[i].Key])
			}
		}
	}
}
