package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) callCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "call [flags] PACKAGE[@VERSION] FUNCTION [NAME=VALUE | NAME:=JSON ...]",
		Short: "Call a function of a package, and print its result",
		Long: `Call a function of a package in a namespace, and print its result.

NAME=VALUE is read by the type that the function declares, NAME:=JSON is JSON, for
arrays and classes. A secret input takes a reference: NAME=secret:KEY for a key of
secrets.yml, NAME=kube:SECRET/KEY for a Secret of the namespace. Arguments are
checked before anything is created. The result goes to stdout (a string as it is,
everything else as JSON), the program's output to stderr.`,
		Example: `  berth call arithmetic add a=3 b=4
  berth call text@1.0.0 count 'words:=["to", "be"]' --on site-a`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("berth call takes a package and a function, such as berth call arithmetic add a=3 b=4; see berth call --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var spec berth.TaskSpec
			if err := f.resources(cmd, &spec); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				call, err := readCall(ctx, service, spec.Infrastructure, args)
				if err != nil {
					return err
				}
				spec.Call = call
				return a.run(ctx, service, f.submission(spec), f.detach, attendance{output: a.stderr, result: a.printResult, rest: restOfCall})
			})
		},
	}
	a.resourceFlags(cmd, &f)
	return cmd
}

// readCall reads a call as it is typed: by the types of the function.
func readCall(ctx context.Context, service berth.Service, infrastructure string, args []string) (*berth.Call, error) {
	name, version, _ := strings.Cut(args[0], "@")
	if name == "" || strings.HasSuffix(args[0], "@") {
		return nil, fmt.Errorf("package %q: write PACKAGE or PACKAGE@VERSION", args[0])
	}
	pkg, err := service.Package(ctx, infrastructure, name, version)
	if err != nil {
		return nil, err
	}
	call := &berth.Call{Package: pkg.Name, Version: pkg.Version, Digest: pkg.Digest, Function: args[1], Arguments: map[string]json.RawMessage{}}
	for _, word := range args[2:] {
		name, value, err := pkg.ParseArgument(call.Function, word)
		if err != nil {
			return nil, err
		}
		if _, twice := call.Arguments[name]; twice {
			return nil, fmt.Errorf("argument %s is given twice", name)
		}
		call.Arguments[name] = value
	}
	// What is wrong is told here, where the words were typed.
	_, _, err = pkg.Arguments(call.Function, call.Arguments)
	return call, err
}

// restOfCall is how long the rest of a function's output is waited for: its
// result is there, and where it succeeded that is what was asked for.
func restOfCall(task berth.Task) time.Duration {
	if task.State == berth.StateSucceeded {
		return 50 * time.Millisecond
	}
	return 10 * time.Second
}

// printResult prints the result of a function.
func (a *app) printResult(view *live, task berth.Task) error {
	if a.output != "table" {
		var out bytes.Buffer
		err := a.printTo(&out, task, nil)
		if err == nil {
			err = view.write(a.stdout, out.Bytes())
		}
		return err
	}
	if task.State != berth.StateSucceeded || len(task.Result) == 0 || string(task.Result) == "null" {
		return nil
	}
	return view.write(a.stdout, append(plain(task.Result), '\n'))
}

// plain is a value as a person or a script wants it: a string as it is, all
// else as JSON.
func plain(value json.RawMessage) []byte {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return []byte(text)
	}
	return readable.ReplaceAllFunc(value, func(escape []byte) []byte {
		if char, ok := readableChars[string(escape)]; ok {
			return []byte{char}
		}
		return escape
	})
}

// What is stored went through encoding/json, which escapes these for the sake
// of HTML; on a terminal they are as the program gave them. An escape is
// matched as a whole, as the backslash before a 'u' may be an escaped one.
var (
	readable      = regexp.MustCompile(`\\(u00(3c|3e|26)|.)`)
	readableChars = map[string]byte{`\u003c`: '<', `\u003e`: '>', `\u0026`: '&'}
)
